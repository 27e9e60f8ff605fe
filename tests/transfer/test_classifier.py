"""`TransferClassifier`: photographs in, names of classes out, the same as keras_hub's."""

import os
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from keras_vit_edu import datasets, training
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.transfer import (
    FineTuning,
    OpenedViTClassifier,
    Preprocessing,
    TransferClassifier,
    hub,
)
from keras_vit_edu.transfer.training_images import TrainingImages
from tests.support import assert_agree, random_weights, to_numpy
from tests.transfer.hub_cache import fill_cache, random_classifier

RNG = np.random.default_rng(0)
PHOTOS = [
    RNG.integers(0, 256, (height, width, 3), "uint8") for height, width in ((40, 60), (80, 50), (32, 32), (33, 90))
]
NAMES = ["cat", "dog", "Löwe"]
DEIT_TINY = "deit_tiny_distilled_patch16_224_imagenet"


def small(class_names=NAMES, image_size=32, **head):
    sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
    backbone = ViTBackbone((image_size, image_size, 3), 8, 12, **sizes, dropout=0, attention_dropout=0)
    model = OpenedViTClassifier(backbone, len(class_names), **head)
    random_weights(model)
    return TransferClassifier(model, Preprocessing(image_size, scale=1 / 127.5, offset=-1.0), class_names)


@pytest.fixture(scope="module")
def classifier():
    return small()


def softmax(logits):
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def by_hand(classifier, images):
    """The softmax of the logits, in NumPy, one image after the other, without batches."""
    logits = [to_numpy(classifier.model(classifier.preprocessing([image]), training=False))[0] for image in images]
    return softmax(np.array(logits))


@pytest.fixture
def folder(tmp_path):
    """Photographs in a subfolder per class, one of them damaged."""
    for i, name in enumerate(("dog/a.png", "dog/b.png", "cat/c.png", "cat/d.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(PHOTOS[i]).save(tmp_path / name)
    (tmp_path / "dog" / "z.jpg").write_bytes(b"no image")
    return tmp_path


# Classifying. ---------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_logits_once(classifier):
    found = classifier.probabilities(PHOTOS)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, by_hand(classifier, PHOTOS), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_the_size_of_a_batch_changes_nothing(classifier, batch_size):
    np.testing.assert_allclose(
        classifier.probabilities(PHOTOS, batch_size=batch_size), by_hand(classifier, PHOTOS), atol=1e-6
    )


def test_predict_names_the_most_probable_classes_first(classifier):
    expected = by_hand(classifier, PHOTOS)
    found = classifier.predict(PHOTOS, top=2)
    assert found.files is None
    assert [len(best) for best in found] == [2] * 4
    for best, row in zip(found, expected, strict=True):
        order = np.argsort(-row)[:2]
        assert [name for name, _ in best] == [NAMES[i] for i in order]
        np.testing.assert_allclose([p for _, p in best], row[order], atol=1e-6)
    assert len(classifier.predict(PHOTOS[0], top=99)[0]) == 3


def test_one_image_a_batch_a_list_and_files_are_the_same(classifier, folder):
    one = classifier.predict(PHOTOS[0])
    assert len(one) == 1
    assert classifier.predict(PHOTOS[0][None]) == one
    assert classifier.predict([PHOTOS[0]]) == one
    assert classifier.predict(str(folder / "dog/a.png")) == one
    assert classifier.predict([folder / "dog/a.png"]) == one
    found = classifier.predict(PHOTOS[0].astype("float64"))  # which is not rounded after resizing
    np.testing.assert_allclose([p for _, p in found[0]], [p for _, p in one[0]], atol=0.01)


def test_a_folder_gives_every_file_below_it(classifier, folder):
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "dog/a.png", folder / ".hidden" / "a.png")
    shutil.copy(folder / "dog/a.png", folder / "dog" / ".a.png")
    with pytest.warns(UserWarning, match=r"1 of 5 files were skipped: .*no image file.*z\.jpg"):
        found = classifier.predict(folder)
    names = [file.relative_to(folder).as_posix() for file in found.files]
    assert names == ["cat/c.png", "cat/d.png", "dog/a.png", "dog/b.png", "dog/z.jpg"]
    expected = classifier.predict([PHOTOS[i] for i in (2, 3, 0, 1)], batch_size=5)
    assert [[name for name, _ in best] for best in found] == [[name for name, _ in best] for best in expected] + [[]]
    ((file, reason),) = found.skipped
    assert file == folder / "dog" / "z.jpg"
    assert "no image file" in reason


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600])  # nothing; its files, but no list; a list, but no files
def test_a_folder_that_may_not_be_opened_is_said_to_be_skipped(classifier, folder, mode):
    (folder / "dog" / "z.jpg").unlink()
    (folder / "cat").chmod(mode)
    if os.access(folder / "cat", os.R_OK | os.X_OK):
        pytest.skip("root may open every folder")
    try:
        with pytest.warns(UserWarning, match="1 of 3 files were skipped: The folder cannot be opened: Permission"):
            found = classifier.predict(folder)
    finally:
        (folder / "cat").chmod(0o700)
    assert [len(best) for best in found] == [0, 3, 3]
    assert [file for file, _ in found.skipped] == [folder / "cat"]


@pytest.mark.parametrize(("call", "fails"), [("listdir", "cat"), ("stat", os.path.join("cat", "."))])
def test_a_folder_that_fails_is_said_to_be_skipped(classifier, folder, monkeypatch, call, fails):
    whole = getattr(os, call)

    def failing(path, *arguments, **options):
        if os.fspath(path) == os.path.join(folder, fails):
            raise OSError(5, "Input/output error")
        return whole(path, *arguments, **options)

    monkeypatch.setattr(os, call, failing)
    (folder / "dog" / "z.jpg").unlink()
    with pytest.warns(UserWarning, match="1 of 3 files were skipped: The folder cannot be opened: Input/output"):
        found = classifier.predict(folder)
    assert [len(best) for best in found] == [0, 3, 3]
    assert [file for file, _ in found.skipped] == [folder / "cat"]


def test_a_bad_file_alone_is_an_error(classifier, folder):
    for files in (folder / "dog/z.jpg", [folder / "dog/z.jpg"]):
        with pytest.raises(ValueError, match=r"no image file.*z\.jpg"):
            classifier.predict(files)
    with pytest.raises(ValueError, match="There is no such file"):
        classifier.predict(folder / "nowhere.jpg")
    with pytest.raises(ValueError, match=r"\(2 files, none can be read\)$"):
        classifier.predict([folder / "dog/z.jpg", folder / "nowhere.jpg"])
    with pytest.raises(ValueError, match="no image file"):
        classifier.probabilities([folder / "dog/a.png", folder / "dog/z.jpg"])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file"):
        classifier.predict(folder / "empty")


def test_predict_each_gives_file_after_file(classifier, folder):
    files = [folder / "dog/z.jpg", folder / "dog/a.png", folder / "dog/b.png"]
    found = list(classifier.predict_each(files, batch_size=2))
    assert [file for file, _, _ in found] == files
    assert [len(best) for _, best, _ in found] == [0, 3, 3]
    assert [bool(reason) for _, _, reason in found] == [True, False, False]


def test_values_from_0_to_1_draw_one_warning(classifier):
    scaled = [photo / 255 for photo in PHOTOS]
    for call in (classifier.predict, classifier.probabilities, classifier.attention_scores):
        with pytest.warns(UserWarning, match="look like images in \\[0, 1\\]") as caught:
            call(scaled)
        assert len([warning for warning in caught if warning.category is UserWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        classifier.predict([np.ones((8, 8, 3), "uint8"), PHOTOS[0]], batch_size=1)  # a dark one among others
        classifier.predict(np.zeros((8, 8, 3), "uint8"))


def test_a_dark_photograph_in_a_file_draws_none(classifier, tmp_path):
    Image.fromarray(np.ones((9, 9, 3), "uint8")).save(tmp_path / "dark.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        classifier.predict(tmp_path / "dark.png")


def test_progress_tells_how_many_are_done(classifier):
    told = []
    classifier.probabilities(PHOTOS, batch_size=3, progress=lambda *done: told.append(done))
    assert told == [(3, 4), (4, 4)]


def test_attention_scores_of_raw_images(classifier):
    scores = classifier.attention_scores(PHOTOS)
    expected = classifier.model.attention_scores(classifier.preprocessing(PHOTOS))
    assert [of_a_block.shape for of_a_block in scores] == [(4, 3, 17, 17)] * 2
    for ours, theirs in zip(scores, expected, strict=True):
        np.testing.assert_array_equal(ours, to_numpy(theirs).astype("float32"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "There must be an image"),
        (np.zeros((4, 4)), r"An image is \(H, W, 3\)"),
        (np.zeros((0, 4, 4, 3)), "There must be an image"),
        ([np.full((4, 4, 3), np.nan)], "NaN"),
        (["a.png", np.zeros((4, 4, 3))], "files or arrays, not both"),
        ("text", "There is no such file"),
    ],
)
def test_what_is_no_image(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(images)


def test_bad_numbers(classifier):
    with pytest.raises(ValueError, match="`top` must be"):
        classifier.predict(PHOTOS, top=0)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        classifier.predict(PHOTOS, batch_size=0)


def test_images_of_several_sizes_for_a_model_that_takes_them_as_they_are(classifier):
    as_they_are = TransferClassifier(classifier.model, Preprocessing(None, scale=1 / 255), NAMES)
    data = [np.full((size, 32, 3), size, "uint8") for size in (32, 33, 32, 33)], [0, 0, 1, 2]
    for call in (as_they_are.preprocess, as_they_are.probabilities):
        with pytest.raises(ValueError, match=r"must be of one size\. Received: .*32, 32, 3.*33, 32, 3"):
            call(data[0])
    with pytest.raises(ValueError, match=r"must be of one size\. Received: .*32, 32, 3.*33, 32, 3"):
        TrainingImages(data).batch(as_they_are.preprocessing, np.arange(2))


# Evaluating. ----------------------------------------------------------------------------------------------------------


def test_evaluate_a_folder_under_the_classifiers_own_order_of_classes(folder):
    ours = small(["Löwe", "dog", "cat"])  # not the order of the subfolders, and one more
    found = ours.evaluate(datasets.scan_folder(folder), batch_size=3)
    assert isinstance(found, training.Evaluation)
    assert found.class_names == ("Löwe", "dog", "cat")
    assert found.labels.tolist() == [2, 2, 1, 1]
    expected = by_hand(ours, [PHOTOS[i] for i in (2, 3, 0, 1)])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.accuracy == np.mean(expected.argmax(axis=1) == [2, 2, 1, 1])
    again = ours.evaluate(folder)
    np.testing.assert_allclose(again.probabilities, expected, atol=1e-6)


def test_evaluate_arrays_with_labels(classifier):
    found = classifier.evaluate(PHOTOS, labels=[0, 1, 2, 0])
    np.testing.assert_allclose(found.probabilities, by_hand(classifier, PHOTOS), atol=1e-6)
    assert found.labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (PHOTOS, None, "Without `labels` there must be a folder"),
        (PHOTOS, [0, 1], "a label for each image. Received: 2 for 4 images"),
        (PHOTOS, [0, 1, 2, 3], r"0 to 2\. Received: from 0 to 3"),
        (PHOTOS, [0, 1, 2, -1], "from -1 to 2"),
        (PHOTOS, [0, 1, 2, 2.0], "whole numbers"),
        (PHOTOS, ["cat", "dog", "dogs", "cat"], r"Did you mean dog\? Received: 'dogs'"),
        (PHOTOS, ["cat", "dog", 2, "cat"], "whole numbers"),
        (PHOTOS, {"cat": 0}, "whole numbers"),
        (PHOTOS, [[0], [1, 2]], "whole numbers"),
        (None, [0], "Received: NoneType"),
        (None, None, "there must be a folder of images. Received: NoneType"),
    ],
)
def test_labels_that_are_none(classifier, data, labels, message):
    with pytest.raises(ValueError, match=message):
        classifier.evaluate(data, labels)


def test_a_folder_with_other_classes(folder):
    with pytest.raises(ValueError, match=r"has 2: cat, bird\. Received: 2 subfolders, of which 1 have not.* 'dog'$"):
        small(["cat", "bird"]).evaluate(folder)
    with pytest.raises(ValueError, match=r"'dog' \(that name has two classes\)$"):
        small(["cat", "dog", "dog"]).evaluate(folder)


# What it is. ----------------------------------------------------------------------------------------------------------


def test_summary_counts_what_trains():
    ours = small()
    ours.model.backbone.trainable = False
    lines = []
    ours.summary(lines.append)
    counts = {line.split()[0]: [int(n.replace(",", "")) for n in line.split()[1:]] for line in lines[3:]}
    # Dense layers: (inputs + 1) * outputs; two norms of 12 + 12.
    block = 4 * 13 * 12 + 13 * 24 + 25 * 12 + 2 * 24
    patch_encoder = (8 * 8 * 3 + 1) * 12 + 17 * 12 + 12
    assert counts["transformer_block_1"] == [block, 0]
    assert counts["patch_encoder"] == [patch_encoder, 0]
    assert counts["logits"] == [13 * 3, 13 * 3]
    assert counts["total"] == [patch_encoder + 2 * block + 24 + 39, 39]
    assert (ours.num_parameters, ours.num_trainable) == tuple(counts["total"])


def test_class_names_are_kept_as_a_folder_has_them():
    assert small(["cafe\u0301", "tea"]).class_names == ("café", "tea")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a", "b"]}, r"a logit for each of the 2 class names\. Received: .*\(None, 3\)"),
        ({"class_names": "abc"}, "must be a list of 1 to 100,000 texts, none of them empty. Received: 'abc'"),
        ({"class_names": ["a", "", "c"]}, "must be a list of 1 to 100,000 texts, none of them empty"),
        ({"preprocessing": Preprocessing(16)}, r"images of shape \(16, 16, 3\), and .*takes \(32, 32, 3\)"),
        ({"preprocessing": None}, "must be a Preprocessing. Received: NoneType"),
    ],
)
def test_parts_that_do_not_fit(classifier, arguments, message):
    parts = {"preprocessing": classifier.preprocessing, "class_names": NAMES, **arguments}
    with pytest.raises(ValueError, match=message):
        TransferClassifier(classifier.model, **parts)


def test_a_model_that_would_preprocess_again_is_refused(keras_hub, tmp_path):
    theirs = preset(keras_hub, tmp_path / "preset")
    with pytest.raises(ValueError, match=r"set `model.preprocessor = None`"):
        TransferClassifier(theirs, Preprocessing(32), ["a", "b", "c", "d"])
    images = [photo.astype("float32") for photo in PHOTOS]
    expected = softmax(their_logits(theirs, images))
    preprocessing = Preprocessing.from_converter(theirs.preprocessor.image_converter)
    theirs.preprocessor = None
    ours = TransferClassifier(theirs, preprocessing, ["a", "b", "c", "d"])
    np.testing.assert_allclose(ours.probabilities(images), expected, atol=1e-4)


def test_a_model_that_takes_its_own_softmax_is_refused():
    with pytest.raises(ValueError, match=r"must give logits.*which ends in softmax$"):
        small(activation="softmax")


@pytest.mark.parametrize("last", [None, lambda: keras.layers.Activation("softmax"), keras.layers.Softmax])
@pytest.mark.parametrize("functional", [True, False])
def test_a_plain_model_that_takes_its_own_softmax_is_refused(last, functional):
    head = keras.layers.Dense(2, activation=None if last else "softmax")
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), head, *([last()] if last else [])])
    if functional:
        model = keras.Model(model.inputs, model.outputs)
    with pytest.raises(ValueError, match=r"must give logits.*which ends in softmax$"):
        TransferClassifier(model, Preprocessing(16), ["a", "b"])
    if last:
        without_last = keras.Model(model.inputs, head.output)
        assert TransferClassifier(without_last, Preprocessing(16), ["a", "b"]).num_classes == 2
    logits = keras.Model(model.inputs, head.input)  # all but the head: no logits, but no softmax either
    with pytest.raises(ValueError, match="a logit for each"):
        TransferClassifier(logits, Preprocessing(16), ["a", "b"])


def test_an_activation_in_the_middle_of_a_model_is_no_activation_at_its_end():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.activation = keras.layers.ReLU()
            self.flatten, self.hidden, self.head = keras.layers.Flatten(), keras.layers.Dense(5), keras.layers.Dense(2)

        def call(self, images):
            return self.head(self.activation(self.hidden(self.flatten(images))))

    assert TransferClassifier(Model(), Preprocessing(8), ["a", "b"]).num_classes == 2


@pytest.mark.skipif(os.name != "posix", reason="a limit on the size of files is set as POSIX has it")
def test_pixels_that_do_not_fit_onto_the_disk_are_an_error_before_any_is_read(monkeypatch):
    import resource

    monkeypatch.setattr("keras_vit_edu.transfer.training_images.LARGEST_IN_MEMORY", 1000)
    images = TrainingImages((PHOTOS, np.arange(len(PHOTOS))))
    preprocessing = Preprocessing(16)
    on_disk = images.pixels(preprocessing, Console(quiet=True))
    assert isinstance(on_disk, np.memmap)
    np.testing.assert_array_equal(on_disk, list(images.at_size(preprocessing, range(len(PHOTOS)))))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"3,072 bytes of pixels do not fit into .*TMPDIR"):
            TrainingImages((PHOTOS, np.arange(len(PHOTOS)))).pixels(preprocessing, Console(quiet=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_another_model_of_ours_has_no_attention_scores_here():
    own = ViTClassifier(2, image_shape=(16, 16, 3), patch_size=8, num_layers=1, head="mean", head_units=())
    ours = TransferClassifier(own, Preprocessing(16, scale=1 / 255), ["a", "b"])
    assert not ours.is_opened
    assert ours.probabilities(PHOTOS).shape == (4, 2)
    with pytest.raises(ValueError, match=r"for ViT and DeiT.*a ViTClassifier$"):
        ours.attention_scores(PHOTOS)


def test_links_in_a_folder_are_followed_but_not_in_a_circle(classifier, folder, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "dogs").symlink_to(folder / "dog", target_is_directory=True)
    with pytest.warns(UserWarning, match="1 of 3 files"):
        found = classifier.predict(tmp_path / "linked")
    assert [file.name for file in found.files] == ["a.png", "b.png", "z.jpg"]
    (tmp_path / "linked" / "dogs" / "a.png").unlink()
    (tmp_path / "linked" / "above").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked" / "itself.png").symlink_to(tmp_path / "linked" / "itself.png")
    with pytest.warns(UserWarning, match="3 of 4 files were skipped"):
        found = classifier.predict(tmp_path / "linked")
    reasons = {file.name: reason.split(". Received: ")[0] for file, reason in found.skipped}
    assert reasons["above"] == "The link leads in a circle, to a folder that it lies in"
    assert reasons["itself.png"] == "The link leads in a circle, to itself"


# Against keras_hub. ---------------------------------------------------------------------------------------------------


def preset(keras_hub, folder, family="ViT", num_classes=4, image_size=32, backbone=None, **head):
    """A small classifier of keras_hub with random weights and its preprocessor, saved as a preset."""
    mlp = {"ViT": {"mlp_dim": 24}, "DeiT": {"intermediate_dim": 24}}[family]
    theirs = getattr(keras_hub.models, f"{family}ImageClassifier")(
        backbone=getattr(keras_hub.models, f"{family}Backbone")(
            image_shape=(image_size, image_size, 3), patch_size=8, num_layers=2, num_heads=3, hidden_dim=12, **mlp,
            **(backbone or {}),
        ),
        num_classes=num_classes,
        preprocessor=getattr(keras_hub.models, f"{family}ImageClassifierPreprocessor")(
            getattr(keras_hub.layers, f"{family}ImageConverter")(
                image_size=(image_size, image_size), scale=[1 / 120, 1 / 127.5, 1 / 130], offset=[-1, -1.1, -0.9]
            )
        ),
        **head,
    )  # fmt: skip
    random_weights(theirs)
    theirs.save_to_preset(str(folder))
    return theirs


def their_logits(theirs, images):
    """Through keras_hub's own preprocessor, one image after the other."""
    rows = [theirs(theirs.preprocessor(image[None].astype("float32")), training=False) for image in images]
    return np.concatenate([to_numpy(row) for row in rows])


HEADS = {
    "ViT": ("ViT", {}),
    "DeiT": ("DeiT", {}),
    "ViT with pre_logits": ("ViT", {"intermediate_dim": 7}),
    "ViT, mean of all tokens": ("ViT", {"pooling": "gap"}),
    "ViT that ends in a softmax": ("ViT", {"activation": "softmax", "intermediate_dim": 7}),
    "DeiT that ends in a softmax": ("DeiT", {"activation": "softmax"}),
}


@pytest.mark.parametrize(("family", "head"), HEADS.values(), ids=HEADS)
def test_the_same_probabilities_as_keras_hub(keras_hub, tmp_path, family, head):
    theirs = preset(keras_hub, tmp_path / "preset", family, **head)
    ours = TransferClassifier.from_preset(tmp_path / "preset")
    assert ours.is_opened
    expected = their_logits(theirs, PHOTOS)
    expected = expected if "activation" in head else softmax(expected)
    images = [photo.astype("float32") for photo in PHOTOS]
    np.testing.assert_allclose(ours.probabilities(images), expected, atol=1e-4)
    assert ours.class_names == ("0", "1", "2", "3")  # keras_hub keeps no names
    assert ours.provenance["preset"] == str(tmp_path / "preset")
    assert (ours.provenance["weights"], ours.provenance["head"]) == ("pretrained", "of the preset")


def test_the_labels_of_imagenet_are_keras_hubs(keras_hub, tmp_path, capsys):
    theirs = preset(keras_hub, tmp_path / "preset", num_classes=1000)
    ours = TransferClassifier.from_preset(tmp_path / "preset")
    images = [photo.astype("float32") for photo in PHOTOS]
    decoded = keras_hub.utils.decode_imagenet_predictions(softmax(their_logits(theirs, images)), top=5)
    for found, expected in zip(ours.predict(images), decoded, strict=True):
        assert [name for name, _ in found] == [name for name, _ in expected]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-4)
    assert "does not name its 1000 classes; these are ImageNet's" in capsys.readouterr().err


@pytest.mark.parametrize("head", [{}, {"intermediate_dim": 7}, {"activation": "softmax"}])
def test_a_new_head_is_zero_and_the_backbone_pretrained(keras_hub, tmp_path, head):
    theirs = preset(keras_hub, tmp_path / "preset", **head)
    ours = TransferClassifier.from_preset(tmp_path / "preset", class_names=NAMES)
    assert ours.class_names == tuple(NAMES)
    assert ours.model.pre_logits_dim is None
    np.testing.assert_array_equal(ours.probabilities(PHOTOS), np.full((4, 3), 1 / 3, "float32"))
    assert all(not weight.any() for weight in ours.model.get_layer("logits").get_weights())
    images = ours.preprocess(PHOTOS)
    assert_agree(to_numpy(ours.model.backbone(images)), to_numpy(theirs.backbone(images)), 1e-5)
    assert ours.provenance["head"] == "new"


def test_a_new_head_keeps_the_pooling_and_without_a_class_token_takes_the_mean(keras_hub, tmp_path):
    preset(keras_hub, tmp_path / "gap", pooling="gap")
    assert TransferClassifier.from_preset(tmp_path / "gap", class_names=NAMES).model.pooling == "gap"
    preset(keras_hub, tmp_path / "tokenless", backbone={"use_class_token": False})
    assert TransferClassifier.from_preset(tmp_path / "tokenless", class_names=NAMES).model.pooling == "gap"


def test_another_image_size(keras_hub, tmp_path):
    preset(keras_hub, tmp_path / "preset")
    ours = TransferClassifier.from_preset(tmp_path / "preset", image_size=(48, 40))
    assert ours.preprocess(PHOTOS).shape == (4, 48, 40, 3)
    assert ours.attention_scores(PHOTOS)[0].shape == (4, 3, 31, 31)
    with pytest.raises(ValueError, match="divide the image"):
        TransferClassifier.from_preset(tmp_path / "preset", image_size=33)


def test_a_preset_without_a_head(keras_hub, tmp_path):
    theirs = preset(keras_hub, tmp_path / "preset")
    theirs.backbone.save_to_preset(str(tmp_path / "backbone"))
    converter = theirs.preprocessor.image_converter
    converter.save_to_preset(str(tmp_path / "backbone"))
    with pytest.raises(hub.NoHead, match=r"without a classifier's head.*give `class_names` for a new head\.$"):
        TransferClassifier.from_preset(tmp_path / "backbone")
    ours = TransferClassifier.from_preset(tmp_path / "backbone", class_names=NAMES)
    images = ours.preprocess(PHOTOS)
    assert_agree(to_numpy(ours.model.backbone(images)), to_numpy(theirs.backbone(images)), 1e-5)
    (tmp_path / "preset" / "task.weights.h5").unlink()  # keras_hub would take a random head
    with pytest.raises(hub.NoHead, match="none of a head"):
        TransferClassifier.from_preset(tmp_path / "preset")
    assert TransferClassifier.from_preset(tmp_path / "preset", load_weights=False).num_classes == 4


def test_a_preset_without_an_image_converter_wants_a_preprocessing(keras_hub, tmp_path):
    theirs = preset(keras_hub, tmp_path / "preset")
    theirs.preprocessor = None
    theirs.save_to_preset(str(tmp_path / "bare"))
    for name in ("preprocessor.json", "image_converter.json"):
        Path(tmp_path / "bare" / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="give `preprocessing`"):
        TransferClassifier.from_preset(tmp_path / "bare")
    ours = TransferClassifier.from_preset(tmp_path / "bare", preprocessing=Preprocessing(32, scale=1 / 255))
    assert ours.preprocessing.scale == 1 / 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ["a", "a"]}, "each another one"),
        ({"class_names": ["a"]}, "two class names or more"),
        ({"class_names": []}, "must be a list of 1 to 100,000 texts"),
    ],
)
def test_class_names_for_a_new_head(keras_hub, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        TransferClassifier.from_preset(tmp_path / "preset", **arguments)


def test_an_artifact_is_no_preset(tmp_path):
    small().save(tmp_path / "saved")
    with pytest.raises(ValueError, match="saved by a TransferClassifier, whose `load` opens it"):
        TransferClassifier.from_preset(tmp_path / "saved")


def test_other_dtypes(keras_hub, tmp_path):
    preset(keras_hub, tmp_path / "preset")
    ours = TransferClassifier.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert ours.model.backbone.compute_dtype == "bfloat16"
    expected = TransferClassifier.from_preset(tmp_path / "preset").probabilities(PHOTOS)
    np.testing.assert_allclose(ours.probabilities(PHOTOS), expected, atol=0.05)


@pytest.fixture
def resnet(keras_hub, tmp_path):
    """A preset of a small ResNet that ends in a softmax."""
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block", image_shape=(None, None, 3),
    )  # fmt: skip
    theirs = keras_hub.models.ResNetImageClassifier(
        backbone=backbone,
        num_classes=3,
        activation="softmax",
        preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(
            keras_hub.layers.ResNetImageConverter(image_size=(24, 24), scale=1 / 255)
        ),
    )
    random_weights(theirs, scale=0.05)
    for weight in theirs.non_trainable_weights:
        weight.assign(keras.ops.abs(weight) + 0.5)
    theirs.save_to_preset(str(tmp_path / "resnet"))
    return theirs, tmp_path / "resnet"


def test_another_family_is_taken_as_it_is_and_says_so_once(resnet, capsys):
    theirs, folder = resnet
    ours = TransferClassifier.from_preset(folder)
    assert all(layer.built for layer in ours.model._flatten_layers())  # else JAX builds the model at every batch
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "keras_vit_edu" in line] == [
        f"keras_vit_edu: {folder} is taken as it is; there are no attention maps."
    ]
    images = [photo.astype("float32") for photo in PHOTOS]
    np.testing.assert_allclose(ours.probabilities(images), their_logits(theirs, images), atol=1e-4)
    assert not ours.is_opened
    with pytest.raises(ValueError, match=r"a ResNetImageClassifier$"):
        ours.attention_scores(PHOTOS)
    assert "total" in " ".join(_lines(ours))
    ours.save(folder.parent / "kept.zip")
    kept = TransferClassifier.load(folder.parent / "kept.zip")
    np.testing.assert_array_equal(kept.probabilities(PHOTOS), ours.probabilities(PHOTOS))


def _lines(classifier):
    lines = []
    classifier.summary(lines.append)
    return lines


def test_another_family_with_a_new_head_and_another_size(resnet):
    _, folder = resnet
    ours = TransferClassifier.from_preset(folder, class_names=["a", "b"], image_size=40)
    assert ours.preprocess(PHOTOS).shape == (4, 40, 40, 3)
    np.testing.assert_array_equal(ours.probabilities(PHOTOS), np.full((4, 2), 0.5, "float32"))


def test_a_new_head_keeps_what_the_preset_has_between_the_backbone_and_the_head(keras_hub, tmp_path):
    models = keras_hub.models
    backbone = models.MobileNetBackbone(
        stackwise_expansion=[[8], [16]], stackwise_num_blocks=[1, 1], stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [3]], stackwise_num_strides=[[2], [1]], stackwise_se_ratio=[[None], [0.25]],
        stackwise_activation=[["relu"], ["hard_swish"]], stackwise_padding=[[1], [1]], output_num_filters=16,
        input_activation="hard_swish", output_activation="hard_swish", input_num_filters=8, image_shape=(32, 32, 3),
        depthwise_filters=8, depthwise_stride=2, depthwise_residual=False, squeeze_and_excite=0.5, last_layer_filter=16,
    )  # fmt: skip
    preprocessor = models.MobileNetImageClassifierPreprocessor(
        keras_hub.layers.MobileNetImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    theirs = models.MobileNetImageClassifier(
        backbone=backbone, num_classes=7, preprocessor=preprocessor, num_features=16
    )
    theirs.save_to_preset(str(tmp_path / "mobilenet"))
    ours = TransferClassifier.from_preset(tmp_path / "mobilenet", ["a", "b", "c"])
    np.testing.assert_array_equal(ours.probabilities(PHOTOS), np.full((4, 3), 1 / 3, "float32"))
    below = [to_numpy(weight) for weight in theirs.weights if weight.shape[-1:] != (7,)]
    kept = [to_numpy(weight) for weight in ours.model.weights if weight.shape[-1:] != (3,)]
    assert any("classifier_conv" in weight.path for weight in theirs.weights)  # which keras_hub leaves random
    assert len(below) == len(kept) == len(theirs.weights) - 2
    for expected, found in zip(below, kept, strict=True):
        np.testing.assert_array_equal(found, expected)

    (tmp_path / "mobilenet" / "task.weights.h5").unlink()
    with pytest.raises(ValueError, match="layers between the backbone and the head, whose weights are missing"):
        TransferClassifier.from_preset(tmp_path / "mobilenet", ["a", "b"])


def test_a_vgg_is_said_to_take_no_new_head(keras_hub, tmp_path):
    backbone = keras_hub.models.VGGBackbone([1, 1, 1], [4, 4, 8], image_shape=(64, 64, 3))
    preprocessor = keras_hub.models.VGGImageClassifierPreprocessor(
        keras_hub.layers.VGGImageConverter(image_size=(64, 64), scale=1 / 255)
    )
    theirs = keras_hub.models.VGGImageClassifier(
        backbone=backbone, num_classes=4, preprocessor=preprocessor, pooling_hidden_dim=8
    )
    theirs.save_to_preset(str(tmp_path / "vgg"))
    assert TransferClassifier.from_preset(tmp_path / "vgg").num_classes == 4
    with pytest.raises(ValueError, match="ends in a Sequential and has its own classes alone"):
        TransferClassifier.from_preset(tmp_path / "vgg", ["a", "b"])


def test_the_same_seed_drops_the_same_paths(keras_hub, tmp_path):
    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, patch_size=4
    )
    preprocessor = keras_hub.models.SwinTransformerImageClassifierPreprocessor(
        keras_hub.layers.SwinTransformerImageConverter(image_size=(32, 32), scale=1 / 255)
    )
    keras_hub.models.SwinTransformerImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=preprocessor
    ).save_to_preset(str(tmp_path / "swin"))
    losses = []
    for run in ("one", "two"):
        ours = TransferClassifier.from_preset(tmp_path / "swin", ["a", "b"])
        photographs = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), "uint8"), np.arange(12) % 2
        options = FineTuning(method="full", epochs=2, batch_size=4, learning_rate=1e-2, validation_share=0)
        record = ours.fit(photographs, options=options, run=tmp_path / run, console=Console(quiet=True))
        losses.append(record["history"]["loss"])
    assert losses[0] == losses[1]


# At the real size. ----------------------------------------------------------------------------------------------------


def test_deit_tiny_by_its_name(keras_hub, tmp_path, monkeypatch):
    theirs = random_classifier(DEIT_TINY)
    fill_cache(tmp_path / "cache", DEIT_TINY, theirs)
    ours = TransferClassifier.from_preset(DEIT_TINY)
    assert ours.num_parameters == 5_524_800 + 193 * 1000
    images = [photo.astype("float32") for photo in PHOTOS[:2]]
    decoded = keras_hub.utils.decode_imagenet_predictions(softmax(their_logits(theirs, images)), top=5)
    for found, expected in zip(ours.predict(images), decoded, strict=True):
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-4)
        assert [name for name, _ in found] == [name for name, _ in expected]
    ours.save(tmp_path / "deit.zip")
    loaded = TransferClassifier.load(tmp_path / "deit.zip")
    np.testing.assert_array_equal(loaded.probabilities(images), ours.probabilities(images))
    assert loaded.provenance["preset"] == DEIT_TINY


def test_a_name_that_cannot_be_had_and_the_fallback(keras_hub, tmp_path, capsys):
    with pytest.raises(hub.PresetUnavailable, match=f"The preset {DEIT_TINY} could not be had"):
        TransferClassifier.from_preset(DEIT_TINY)
    preset(keras_hub, tmp_path / "preset")
    ours = TransferClassifier.from_preset(DEIT_TINY, class_names=NAMES, fallback=str(tmp_path / "preset"))
    assert ours.provenance["preset"] == str(tmp_path / "preset")
    assert f"Loading {tmp_path / 'preset'} instead" in capsys.readouterr().err
