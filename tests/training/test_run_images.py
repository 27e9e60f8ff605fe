"""Which images a run learns from, and which ones a classifier is tested on."""

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu import datasets
from keras_vit_edu.training import RunFolder, images_of_run, images_to_test, images_to_train_on
from keras_vit_edu.training.run_images import named_images
from keras_vit_edu.training.train import fingerprint

pytestmark = pytest.mark.any_backend


def folder_of_images(folder, seed=0, count=30):
    """A folder of small images of three classes, without a test part."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype="uint8")
    for i, image in enumerate(images):
        (folder / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "abc"[i % 3] / f"{i:02}.png")
    return folder


@pytest.fixture
def data(tmp_path):
    return folder_of_images(tmp_path / "shapes")


def run_of(folder, images, status="finished"):
    """The folder of a run of `train` that learned from these images."""
    with RunFolder(folder) as run:
        run.configure({"dataset": fingerprint(images)})
        run.update(status=status, source=images.source)
    return folder


def test_images_have_a_name_or_a_path(data):
    assert named_images().name == "mnist-sample"
    assert named_images(data=data).x_train.shape[1:] == (8, 8, 1)
    assert named_images(data=data, image_size=(4, 6)).x_train.shape[1:] == (4, 6, 1)
    with pytest.raises(ValueError, match="There is no dataset 'shapes'"):
        named_images("shapes", data)


def test_the_images_of_a_run_are_found_where_they_were(data, tmp_path):
    images = named_images(data=data)
    run = run_of(tmp_path / "run", images)
    assert fingerprint(images_of_run(run)) == fingerprint(images)
    data.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"are no longer at .*Choose the test images with `data`"):
        images_of_run(run)
    folder_of_images(data, seed=1)
    with pytest.raises(ValueError, match="was trained on different images than those in"):
        images_of_run(run)


def test_a_classifier_is_tested_on_what_its_run_kept_for_the_test(data, tmp_path):
    images = named_images(data=data)
    run = run_of(tmp_path / "run", images)
    own, given = images_to_test(run), images_to_test(run, data=data)
    assert (own.are_of_run, own.are_all, given.are_of_run, given.are_all) == (True, False, True, False)
    np.testing.assert_array_equal(own.images.x_test, images.x_test)
    np.testing.assert_array_equal(given.images.x_test, images.x_test)


def test_it_is_tested_on_all_other_images(data, tmp_path):
    run = run_of(tmp_path / "run", named_images(data=data))
    found = images_to_test(run, data=folder_of_images(tmp_path / "others", seed=1))
    assert (len(found.images.x_test), found.are_of_run, found.are_all) == (30, False, True)
    assert images_to_test(data=data).are_all


def test_without_a_run_it_is_tested_on_the_sample():
    found = images_to_test()
    assert (found.images.name, found.are_of_run, found.are_all) == ("mnist-sample", False, False)


def test_an_unfinished_run_that_took_its_images_for_mnist_goes_on_with_them(tmp_path):
    """As older versions took everything at a path."""
    x, y = np.zeros((30, 28, 28), "uint8"), np.arange(30) % 3
    np.savez(tmp_path / "letters.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    as_mnist = datasets.load("mnist", tmp_path / "letters.npz")
    run = run_of(tmp_path / "run", as_mnist, "interrupted")
    assert images_to_train_on(run, data=tmp_path / "letters.npz").name == "mnist"
    assert images_to_train_on(tmp_path / "another", data=tmp_path / "letters.npz").name == "letters"
    finished = run_of(tmp_path / "finished", as_mnist)
    assert images_to_train_on(finished, data=tmp_path / "letters.npz").name == "letters"
