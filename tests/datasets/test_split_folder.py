import numpy as np
import pytest
from PIL import Image

from keras_vit_edu.datasets import find_split, load_data, scan_folder

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def put(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), 100, "uint8")).save(folder / file)
    return folder


def photographs(*parts, classes=("cat", "dog")):
    return [f"{part}/{name}/{i}.png" for part in parts for name in classes for i in range(3)]


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train", "validation": "val", "test": "test"},
        {"train": "Train", "validation": "Validation"},
        {"train": "TRAIN", "validation": "valid", "test": "TEST"},
        {"train": "training", "test": "testing"},
        {"validation": "val", "test": "test"},
    ],
    ids=lambda names: "+".join(names.values()),
)
def test_the_parts_of_a_data_set_that_comes_split(names, tmp_path):
    put(tmp_path, *photographs(*names.values()))
    found = find_split(tmp_path)
    assert {part: getattr(found, part) for part in ("train", "validation", "test")} == {
        part: tmp_path / names[part] if part in names else None for part in ("train", "validation", "test")
    }
    with pytest.raises(ValueError, match=r"split already\. Pass one of its parts") as error:
        scan_folder(tmp_path)
    assert all(str(part) in str(error.value) for part in found.parts)
    assert scan_folder(found.parts[0]).class_names == ("cat", "dog")


def test_a_part_may_lack_a_class_and_hold_a_text_beside_its_subfolders(tmp_path):
    put(tmp_path, *photographs("train"), *photographs("val", classes=["dog"]), "notes/page.png")
    (tmp_path / "train" / "README.txt").write_text("not an image")
    (tmp_path / "labels.csv").write_text("not an image either")
    assert [part.name for part in find_split(tmp_path).parts] == ["train", "val"]


@pytest.mark.parametrize(
    "files",
    [
        ["train/1.png", "train/2.png", "car/1.png"],
        ["train/steam/1.png", "train/fast/2.png", "car/fast/1.png"],  # the same subfolder, but cars are no part
        ["train/steam/1.png", "test/blood/2.png", "car/1.png"],  # no subfolder in common
        ["train/fast/1.png", "train/2.png", "test/fast/3.png"],  # an image beside the subfolders
        ["train/1.png", "test/2.png"],
    ],
    ids=" ".join,
)
def test_a_class_may_be_called_as_a_part(files, tmp_path):
    put(tmp_path, *files)
    assert find_split(tmp_path) is None
    assert scan_folder(tmp_path).class_names == tuple(sorted({file.split("/")[0] for file in files}))


def test_two_folders_for_one_part(tmp_path):
    put(tmp_path, *photographs("train", "val", "valid"))
    with pytest.raises(ValueError, match=r"one folder per part. Received: val and valid in "):
        find_split(tmp_path)


def test_what_is_no_folder_is_not_split(tmp_path):
    assert find_split(tmp_path / "nothing") is None
    with pytest.raises(ValueError, match="must be given as a path"):
        find_split(None)


@pytest.mark.parametrize(
    ("files", "parts", "without"),
    [
        ([*photographs("train"), "test/1.png"], ["train"], ["test"]),  # labels of the test are secret
        ([*photographs("train", "val"), "test/1.png"], ["train", "val"], ["test"]),
        ([*photographs("train", "val"), "train/overview.png"], ["train", "val"], []),
        ([*photographs("train", "val"), "page.png", "val/overview.png"], ["train", "val"], []),
        ([*photographs("train", "val", "papers"), "val/overview.png"], ["train", "val"], []),
        (photographs("train", "eval"), ["train", "eval"], []),
        (photographs("train", "Dev", "test"), ["train", "Dev", "test"], []),
        (photographs("train"), ["train"], []),
    ],
    ids=["flat test", "flat test and val", "image in train", "images beside", "others", "eval", "dev", "train alone"],
)
def test_what_people_leave_in_and_beside_the_parts(files, parts, without, tmp_path):
    found = find_split(put(tmp_path, *files))
    assert [part.name for part in found.parts] == parts
    assert [folder.name for folder in found.without_classes] == without
    dataset = load_data(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.has_test == (len(parts) > 1)
    assert any("the folder test is not used" in note for note in dataset.notes) == bool(without)
