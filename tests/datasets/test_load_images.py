import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu.datasets import image_files_fingerprint, load_images, scan_folder

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]

WIDTHS = {"cat/felix.png": 10, "cat/tom.png": 20, "dog/rex.png": 30}
FILES = list(WIDTHS)


@pytest.fixture
def folder(tmp_path):
    for file, width in WIDTHS.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, width, 3), width, "uint8")).save(tmp_path / file)
    return tmp_path


def test_images_come_in_the_order_of_the_files(folder):
    images = list(load_images(scan_folder(folder)))
    assert [image.shape for image in images] == [(8, 10, 3), (8, 20, 3), (8, 30, 3)]
    assert [image.dtype for image in images] == ["uint8"] * 3
    assert [image[0, 0, 0] for image in images] == [10, 20, 30]


@pytest.mark.parametrize("indices", [[2, 0, 2], np.array([2, 0, 2], "int32")])
def test_indices_choose(indices, folder):
    assert [image.shape[1] for image in load_images(scan_folder(folder), indices)] == [30, 10, 30]
    assert [image.shape[1] for image in load_images([folder / file for file in FILES], indices)] == [30, 10, 30]


def test_no_indices_choose_nothing(folder):
    assert list(load_images(scan_folder(folder), [])) == []


def test_a_file_is_read_when_its_turn_comes(folder):
    images = load_images(scan_folder(folder))
    next(images)
    (folder / "cat/tom.png").unlink()
    with pytest.raises(ValueError, match=r"There is no such file. Received: .*tom.png$"):
        next(images)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 3], "below the number of images, 3.* Received: indices from 0 to 3"),
        ([-1], "Received: indices from -1 to -1"),
        ([0.5], r"Received: float64 of shape \(1,\)"),
        ([[0]], r"Received: int\d+ of shape \(1, 1\)"),
        (np.array([True, False, True]), r"Received: bool of shape \(3,\)"),
    ],
)
def test_indices_that_choose_no_image(indices, message, folder):
    for function in (load_images, image_files_fingerprint):
        with pytest.raises(ValueError, match=f"{message}$"):
            function(scan_folder(folder), indices)


# image_files_fingerprint ----------------------------------------------------------------------------------------------


def test_the_fingerprint_is_the_sha256_of_the_files_sha256(folder):
    digests = [hashlib.sha256((folder / file).read_bytes()).digest() for file in FILES]
    assert image_files_fingerprint(scan_folder(folder)) == hashlib.sha256(b"".join(digests)).hexdigest()
    assert image_files_fingerprint(scan_folder(folder), [1]) == hashlib.sha256(digests[1]).hexdigest()


def test_where_the_files_lie_and_what_they_are_called_does_not_count(folder, tmp_path_factory):
    before = image_files_fingerprint(scan_folder(folder))
    moved = tmp_path_factory.mktemp("moved") / "pets"
    shutil.copytree(folder, moved)
    (moved / "dog").rename(moved / "hound")
    assert image_files_fingerprint(scan_folder(moved)) == before


def test_contents_and_their_order_count(folder):
    found = scan_folder(folder)
    before = image_files_fingerprint(found)
    assert image_files_fingerprint(found, [1, 0, 2]) != before
    content = bytearray((folder / "dog/rex.png").read_bytes())
    content[-1] ^= 1
    (folder / "dog/rex.png").write_bytes(content)
    assert image_files_fingerprint(found) != before


def test_a_file_that_cannot_be_fingerprinted(folder):
    with pytest.raises(ValueError, match=r"The file cannot be read: No such file or directory. Received: .*gone.png$"):
        image_files_fingerprint([folder / "gone.png"])
