"""Transfer really helps: a small preset of keras_hub, pretrained on other classes, against the same from scratch."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

pytest.importorskip("keras_hub", reason="the pretrained model is a preset of keras_hub", exc_type=ImportError)

from keras_vit_edu.datasets import Augmentation, load
from keras_vit_edu.transfer import FineTuning, TransferClassifier

pytestmark = pytest.mark.hub

# Pretrained on clothes, and on the digits 0 to 4 turned and mirrored (tools/pretrain_small_vit.py).
SMALL_VIT = Path(__file__).parent / "small_vit"
UNSEEN = ("5", "6", "7", "8", "9")
PER_CLASS = 20
DIGITS = Augmentation(rotation=10, shift=2, scale=0.1)

OPTIONS = {
    "probe": FineTuning(method="probe", probe_epochs=100, probe_learning_rate=3e-2, batch_size=100, validation_split=0),
    "lp-ft": FineTuning(learning_rate=1e-3, epochs=15, augmentation=DIGITS, validation_split=0),
}
OPTIONS["scratch"] = OPTIONS["lp-ft"]  # the same training, of the same model with random weights


def unseen_digits(part):
    """The digits 5 to 9 of the bundled sample, in colour and with the border of the pretraining; labels 0 to 4."""
    sample = load("mnist-sample")
    images, labels = getattr(sample, f"x_{part}"), getattr(sample, f"y_{part}")
    is_unseen = labels >= 5
    padded = np.pad(images[is_unseen], ((0, 0), (2, 2), (2, 2), (0, 0)))  # 28 x 28 to 32 x 32
    return np.repeat(padded, 3, axis=-1), labels[is_unseen] - 5


def a_few(draw):
    """`PER_CLASS` training images of each class, others in each draw."""
    images, labels = unseen_digits("train")
    rng = np.random.default_rng(draw)
    chosen = np.concatenate([rng.choice(np.flatnonzero(labels == k), PER_CLASS, replace=False) for k in range(5)])
    return images[chosen], labels[chosen]


def accuracy(method, draw, tmp_path):
    """Of the test's digits 5 to 9, of a model that learned from the draw."""
    keras.utils.set_random_seed(draw)
    classifier = TransferClassifier.from_preset(SMALL_VIT, class_names=UNSEEN, load_weights=method != "scratch")
    quiet = {"console": Console(quiet=True), "cache": tmp_path / "features"}
    classifier.fit(a_few(draw), options=OPTIONS[method].replace(seed=draw), **quiet)
    return classifier.evaluate(*unseen_digits("test")).accuracy


@pytest.mark.slow
@pytest.mark.timeout(1800)  # fifteen trainings, and each compiles on JAX
def test_twenty_images_of_a_class_teach_a_pretrained_model_more(tmp_path):
    draws = {method: [accuracy(method, draw, tmp_path) for draw in range(5)] for method in OPTIONS}
    print({method: [f"{share:.1%}" for share in found] for method, found in draws.items()})
    mean = {method: np.mean(found) for method, found in draws.items()}
    assert mean["lp-ft"] > mean["scratch"] + 0.12
    assert mean["probe"] > mean["scratch"] + 0.07


# Photographs, as files: the pictures that come with scikit-image and scikit-learn, cut up; a class is a picture.
PICTURES = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "retina", "china", "flower")
CELL = 64  # side in pixels


def picture(name):
    """One of them, RGB."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    images = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    found = images.load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(data, name)()
    return Image.fromarray(found).convert("RGB")


def cut_up(folder):
    """Each picture's cells as JPEG files, in two folders like the colours of a chessboard: no pixel is in both."""
    for name in PICTURES:
        whole = picture(name)
        for row in range(min(8, whole.height // CELL)):
            for column in range(min(8, whole.width // CELL)):
                file = folder / ("train", "test")[(row + column) % 2] / name / f"{row}-{column}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                left, top = column * CELL, row * CELL
                whole.crop((left, top, left + CELL, top + CELL)).save(file, quality=95)


@pytest.mark.slow
def test_from_a_folder_of_photographs_to_a_classifier(tmp_path):
    cut_up(tmp_path)
    keras.utils.set_random_seed(0)
    classifier = TransferClassifier.from_preset(SMALL_VIT, class_names=sorted(PICTURES))
    options = OPTIONS["lp-ft"].replace(augmentation="photographs")
    quiet = {"console": Console(quiet=True), "cache": tmp_path / "features"}
    classifier.fit(tmp_path / "train", options=options, run=tmp_path / "run", **quiet)
    kept = TransferClassifier.load(tmp_path / "run" / "classifier")
    found = kept.evaluate(tmp_path / "test")
    print(f"{found.accuracy:.1%}")
    assert found.accuracy > 0.6  # 0.11 by chance
