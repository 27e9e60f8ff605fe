"""What `TransferClassifier.fit` and `evaluate` take besides a folder: files and labels, a CSV, a split data set."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from keras_vit_edu.transfer import FineTuning, TransferClassifier
from keras_vit_edu.transfer.class_names import indices_of_names
from keras_vit_edu.transfer.split_images import parts_of_split
from keras_vit_edu.transfer.training_images import TrainingImages
from tests.transfer.small import PREPROCESSING, classifier, coloured

pytestmark = pytest.mark.any_backend

QUICK = FineTuning(method="probe", probe_epochs=1, batch_size=8)
IMAGES, LABELS = coloured(24)
NAMES = ["red", "green", "blue"]  # not the order of a folder's classes


@pytest.fixture
def folder(tmp_path):
    """The images as `photos/<class>/<number>.png`."""
    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        (tmp_path / "photos" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / NAMES[label] / f"{i:02}.png")
    return tmp_path / "photos"


@pytest.fixture
def fit(tmp_path):
    """Fits a fresh classifier; what `run.json` says, and what was printed."""

    def call(data, validation=None, run=None):
        said = io.StringIO()
        console = Console(file=said, width=1000, highlight=False)
        ours = TransferClassifier(classifier(), PREPROCESSING, NAMES)
        record = ours.fit(data, validation, QUICK, run, cache=tmp_path / "features", console=console)
        return record["history"]["loss"], said.getvalue()

    return call


def files_and_labels(folder):
    return [folder / NAMES[label] / f"{i:02}.png" for i, label in enumerate(LABELS)], LABELS


def test_files_and_labels_train_as_the_arrays_do(fit, folder):
    expected, _ = fit((IMAGES, LABELS))
    files, labels = files_and_labels(folder)
    names = [NAMES[label] for label in labels]
    assert fit((files, labels))[0] == expected
    assert fit((np.array(list(map(str, files))), np.array(names)))[0] == expected


def test_files_streams_and_images_of_pillow_hold_the_same_pixels(folder):
    files, labels = files_and_labels(folder)
    expected = TrainingImages((IMAGES, labels)).batch(PREPROCESSING, np.arange(24))
    for images in (
        list(map(str, files)),
        [open(file, "rb") for file in files],  # noqa: SIM115
        [Image.open(file) for file in files],
        list(IMAGES),
    ):
        found = TrainingImages([images, labels.tolist()])
        np.testing.assert_array_equal(found.batch(PREPROCESSING, np.arange(24)), expected)
        np.testing.assert_array_equal(found.labels, labels)


def test_a_csv_trains_as_its_files_and_labels_do(fit, folder, tmp_path):
    files, labels = files_and_labels(folder)
    rows = [f"photos/{NAMES[label]}/{file.name},{NAMES[label]}" for file, label in zip(files, labels, strict=True)]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows]))
    expected, _ = fit((files, labels))
    assert fit(str(tmp_path / "all.csv"))[0] == expected
    (tmp_path / "validation.csv").write_text("\n".join(rows[:9]))
    with pytest.warns(UserWarning, match="9 of the validation's images are in training too"):
        assert fit(tmp_path / "all.csv", tmp_path / "validation.csv")[0] != expected
    ours = TransferClassifier(classifier(), PREPROCESSING, NAMES)
    found = ours.evaluate(tmp_path / "all.csv")
    assert found.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal(found.probabilities, ours.evaluate(files, labels).probabilities)
    np.testing.assert_array_equal(found.labels, ours.evaluate(IMAGES, [NAMES[i] for i in labels]).labels)


def split(folder, parts):
    for name in NAMES:
        files = sorted((folder / name).iterdir())
        for part, chosen in zip(
            parts, (files[:5], files[5:7], files[7:]) if len(parts) == 3 else (files[:5], files[5:]), strict=False
        ):
            (folder / part / name).mkdir(parents=True)
            for file in chosen:
                file.rename(folder / part / name / file.name)
        (folder / name).rmdir()
    return folder


def test_a_data_set_that_is_split_is_taken_whole(fit, folder):
    split(folder, ["Train", "valid", "test"])
    losses, said = fit(folder)
    assert f"{folder} is split: learning from Train/, validating on valid/, test/ is left alone" in said
    assert losses == fit(folder / "Train", folder / "valid")[0]
    of_test = fit(folder, folder / "test")  # a validation that is given
    assert "validating on" not in of_test[1]
    with pytest.raises(ValueError, match=r"split already\. Pass one of its parts: .*Train, .*valid, .*test"):
        TransferClassifier(classifier(), PREPROCESSING, NAMES).evaluate(folder)
    with pytest.raises(ValueError, match="split already"):
        fit(folder / "Train", folder)


def test_without_a_validation_a_share_of_train_is_kept_for_it(fit, folder, tmp_path):
    split(folder, ["train", "test"])
    losses, said = fit(str(folder), run=tmp_path / "run")
    assert losses == fit(folder / "train")[0]
    assert "learning from train/, test/ is left alone" in said
    images = json.loads((tmp_path / "run" / "run.json").read_text())["images"]
    assert images == {"train": 12, "validation": 3}


def test_without_a_part_to_train_on(tmp_path):
    for part in ("val", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"must have a part `train`\. Received: .*val and .*test"):
        parts_of_split(tmp_path, None, None)


def test_16_bits_train_as_8_do(fit):
    expected, _ = fit((IMAGES, LABELS))
    with pytest.warns(UserWarning, match=r"16 bits are read as from a file"):
        assert fit((IMAGES.astype("uint16") * 257, LABELS))[0] == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "must be an ImageFolder or a pair of images and labels. Received: NoneType"),
        ((None, None), "Received: NoneType"),
        ((["a.png", "b.png"], [0, 1]), r"There is no such file. Received: a.png"),
        (("a.png", "b.png"), r"There is no such file. Received: a.png"),
        ((IMAGES, [0.0] * 24), "Labels of the training images must be whole numbers"),
        ((IMAGES, [True] * 24), "Labels of the training images must be whole numbers"),
        ((IMAGES, ["red"] * 23 + ["rad"]), r"Did you mean red\? Received: 'rad'"),
        ((IMAGES, ["red"] * 23 + [1]), "must be whole numbers"),
        ((IMAGES, ["red"] * 23), "must be 24, one per image. Received: 23"),
        ((IMAGES, [2**40] * 24), r"Labels of the training images must be below 2\*\*31"),
        ((IMAGES.astype("int64"), LABELS), "must be uint8, 0 to 255.*Received: int64"),
        (([], []), "must be one at least"),
    ],
)
def test_unusable_training_data_is_refused(fit, data, message):
    with pytest.raises(ValueError, match=message):
        fit(data)


def test_names_are_those_of_one_class_each():
    assert indices_of_names(["cafe\u0301", "tea"], ("tea", "café")).tolist() == [1, 0]
    with pytest.raises(ValueError, match="'dog', which two classes are called"):
        indices_of_names(["cat", "dog"], ("cat", "dog", "dog"))
    with pytest.raises(ValueError, match=r"There are 2: cat, dog\. Received: 'a\\x1b'"):
        indices_of_names(["a\x1b"], ("cat", "dog"))


def test_files_are_called_by_their_paths(folder):
    files, labels = files_and_labels(folder)
    assert TrainingImages((files, labels)).name_of(3) == str(files[3])
