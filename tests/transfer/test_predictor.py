"""Photographs in, names of classes out."""

import os
import shutil
import warnings

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit_edu import datasets, training
from keras_vit_edu.transfer import (
    Preprocessing,
    TransferClassifier,
)
from keras_vit_edu.transfer.training_images import TrainingImages
from tests.support import to_numpy, vit_classifier
from tests.transfer.small_classifier import NAMES, PHOTOS, small, softmax


@pytest.fixture(scope="module")
def classifier():
    return small()


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


@pytest.mark.any_backend
def test_one_image_a_batch_a_list_and_files_are_the_same(classifier, folder):
    one = classifier.predict(PHOTOS[0])
    assert len(one) == 1
    assert classifier.predict(PHOTOS[0][None]) == one
    assert classifier.predict([PHOTOS[0]]) == one
    assert classifier.predict(str(folder / "dog/a.png")) == one
    assert classifier.predict([folder / "dog/a.png"]) == one
    found = classifier.predict(PHOTOS[0].astype("float64"))  # which is not rounded after resizing
    np.testing.assert_allclose([p for _, p in found[0]], [p for _, p in one[0]], atol=0.01)


@pytest.mark.any_backend
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


@pytest.mark.any_backend
@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600])  # nothing; its files, but no list; a list, but no files
def test_a_folder_without_permission_is_skipped_with_a_warning(classifier, folder, mode):
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


@pytest.mark.any_backend
@pytest.mark.parametrize(("call", "fails"), [("listdir", "cat"), ("stat", os.path.join("cat", "."))])
def test_a_folder_that_fails_is_skipped_with_a_warning(classifier, folder, monkeypatch, call, fails):
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


@pytest.mark.any_backend
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


@pytest.mark.any_backend
def test_predict_each_gives_file_after_file(classifier, folder):
    files = [folder / "dog/z.jpg", folder / "dog/a.png", folder / "dog/b.png"]
    found = list(classifier.predict_each(files, batch_size=2))
    assert [file for file, _, _ in found] == files
    assert [len(best) for _, best, _ in found] == [0, 3, 3]
    assert [bool(reason) for _, _, reason in found] == [True, False, False]


@pytest.mark.any_backend
def test_values_from_0_to_1_draw_one_warning(classifier):
    scaled = [photo / 255 for photo in PHOTOS]
    for call in (classifier.predict, classifier.probabilities, classifier.attention_scores):
        with pytest.warns(UserWarning, match=r"look like values in \[0, 1\]") as caught:
            call(scaled)
        assert len([warning for warning in caught if warning.category is UserWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        classifier.predict([np.ones((8, 8, 3), "uint8"), PHOTOS[0]], batch_size=1)  # a dark one among others
        classifier.predict(np.zeros((8, 8, 3), "uint8"))


@pytest.mark.any_backend
def test_a_dark_photograph_in_a_file_draws_none(classifier, tmp_path):
    Image.fromarray(np.ones((9, 9, 3), "uint8")).save(tmp_path / "dark.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        classifier.predict(tmp_path / "dark.png")


@pytest.mark.any_backend
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


@pytest.mark.any_backend
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


@pytest.mark.any_backend
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


@pytest.mark.any_backend
def test_evaluate_a_folder_under_the_classifiers_own_order_of_classes(folder):
    ours = small(["Löwe", "dog", "cat"])  # not the order of the subfolders, and one more
    found = ours.evaluate(datasets.scan_folder(folder), batch_size=3)
    assert isinstance(found, training.Evaluation)
    assert found.class_names == ("Löwe", "dog", "cat")
    assert found.labels.tolist() == [2, 2, 1, 1]
    expected = by_hand(ours, [PHOTOS[i] for i in (2, 3, 0, 1)])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.accuracy == np.mean(expected.argmax(axis=1) == [2, 2, 1, 1])
    with pytest.warns(UserWarning, match="1 files were skipped"):
        again = ours.evaluate(folder)
    np.testing.assert_allclose(again.probabilities, expected, atol=1e-6)


def test_evaluate_arrays_with_labels(classifier):
    found = classifier.evaluate(PHOTOS, labels=[0, 1, 2, 0])
    np.testing.assert_allclose(found.probabilities, by_hand(classifier, PHOTOS), atol=1e-6)
    assert found.labels.tolist() == [0, 1, 2, 0]


@pytest.mark.any_backend
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


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore:1 files were skipped")
def test_a_folder_with_other_classes(folder):
    with pytest.raises(ValueError, match=r"has 2: cat, bird\. Received: 2 subfolders, of which 1 have not.* 'dog'$"):
        small(["cat", "bird"]).evaluate(folder)
    with pytest.raises(ValueError, match=r"'dog' \(that name has two classes\)$"):
        small(["cat", "dog", "dog"]).evaluate(folder)


def test_any_classifier_of_ours_can_be_looked_into():
    own = vit_classifier(2, image_shape=(16, 16, 3), patch_size=8, num_layers=1, head="mean", head_units=())
    ours = TransferClassifier(own, Preprocessing(16, scale=1 / 255), ["a", "b"])
    assert ours.is_opened
    (scores,) = ours.attention_scores(PHOTOS)
    assert tuple(scores.shape) == (4, 4, 4, 4)
    np.testing.assert_allclose(to_numpy(scores).sum(axis=-1), 1, atol=1e-5)


@pytest.mark.any_backend
def test_another_model_has_no_attention_scores():
    images = keras.Input((16, 16, 3))
    other = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)))
    ours = TransferClassifier(other, Preprocessing(16, scale=1 / 255), ["a", "b"])
    assert not ours.is_opened
    assert ours.probabilities(PHOTOS).shape == (4, 2)
    with pytest.raises(ValueError, match=r"for ViT and DeiT.*a Functional$"):
        ours.attention_scores(PHOTOS)


@pytest.mark.any_backend
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
