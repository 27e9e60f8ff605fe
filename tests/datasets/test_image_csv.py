import os

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu.datasets import ImageFolder, image_csv, load_images, scan_csv

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("img/tom.png", "img/rex.png", "img/felix,1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), 10 * i, "uint8")).save(tmp_path / name)
    return tmp_path


def scanned(folder, text, **arguments):
    (folder / "pets.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return scan_csv(folder / "pets.csv", **arguments)


ROWS = 'img/tom.png,cat\nimg/rex.png,dog\n"img/felix,1.png",cat\n'


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "path,label\n" + ROWS,
        "\ufeffPath, Label\r\n" + ROWS.replace("\n", "\r\n"),
        "filename,class\n\n" + ROWS.replace("cat\n", " cat\n\n"),
        "id,label,image\n1,cat,img/tom.png\n2,dog,img/rex.png\n3,cat,'img'\n".replace("'img'", '"img/felix,1.png"'),
        ROWS.replace('"', "").replace(",cat", ";cat").replace(",dog", ";dog").replace("img/tom.png;", "img/tom.png;"),
        "file\tcategory\n" + ROWS.replace('"', "").replace(",cat", "\tcat").replace(",dog", "\tdog"),
    ],
    ids=["no header", "header", "BOM and CRLF", "other names", "more columns", "semicolons", "tabs"],
)
def test_files_and_labels_of_a_csv(folder, text):
    found = scanned(folder, text)
    assert isinstance(found, ImageFolder)
    assert found.class_names == ("cat", "dog")
    assert found.files == ("img/tom.png", "img/rex.png", "img/felix,1.png")
    assert found.labels.dtype == "int32"
    assert found.labels.tolist() == [0, 1, 0]
    assert found.skipped == ()
    assert [image[0, 0, 0] for image in load_images(found)] == [0, 10, 20]


def test_paths_may_be_absolute_and_numbers_are_names(folder):
    found = scanned(folder, f"{folder / 'img/tom.png'},10\nimg/rex.png,9\n")
    assert found.class_names == ("10", "9")
    assert found.paths == (folder / "img/tom.png", folder / "img/rex.png")


def test_it_is_relative_to_the_folder_of_the_file_whatever_the_working_folder(folder, monkeypatch):
    scanned(folder, ROWS)
    monkeypatch.chdir(folder)
    assert len(scan_csv("pets.csv").files) == 3
    monkeypatch.chdir(folder / "img")
    assert len(scan_csv(os.path.join("..", "pets.csv")).files) == 3


def test_a_file_that_cannot_be_read_is_skipped_and_told(folder):
    (folder / "img/bad.png").write_bytes(b"no image")
    told = []
    text = ROWS + "img/gone.png,cat\nimg/bad.png,bird\na\0b.png,cat\n"
    found = scanned(folder, text, progress=lambda *done: told.append(done))
    assert found.class_names == ("cat", "dog")
    assert found.skipped == (
        ("a\0b.png", "There is no such file"),
        ("img/bad.png", "This is no image file that Pillow knows"),
        ("img/gone.png", "There is no such file"),
    )
    assert told == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"two classes or more. Received: .*pets.csv with 0 images of no class$"),
        ("img/tom.png,cat\n", "two classes or more. Received: .* with 1 images of cat"),
        ("a,cat\nb,dog\n", r"0 images of no class \(2 skipped, the first is a: There is no such file\)"),
        ("one\ntwo\n", "columns `path` and `label`.* Received: .*pets.csv, where the first line has 1 columns"),
        ("a,b,c\n", "where the first line has 3 columns"),
        ("path,label\nimg/tom.png\n", "where line 2 has 1 columns"),
        ("img/tom.png,cat\nimg/rex.png,\n", "where line 2 has no label"),
        ("img/tom.png,cat\n,dog\n", "where line 2 has no path"),
        ('img/tom.png,"cat\n', "unexpected end of data"),
        ("img/tom.png," + "x" * 200_000, "field larger than field limit"),
        (b"img/tom.png,caf\xe9\n", "must be UTF-8"),
        (
            "img/tom.png,cat\nimg/tom.png,dog\n",
            "Each file must have one label. Received: img/tom.png, which is cat and, in line 2",
        ),
        ("img/tom.png,cat\nimg/rex.png,Cat\n", "differ only in case .*Received: 'Cat' and 'cat' in "),
    ],
)
def test_what_is_no_such_csv_is_refused(folder, text, message):
    with pytest.raises(ValueError, match=message):
        scanned(folder, text)


def test_a_file_that_is_named_twice_counts_once(folder):
    assert scanned(folder, ROWS + ROWS).files == ("img/tom.png", "img/rex.png", "img/felix,1.png")


def test_a_name_may_hold_what_ends_a_line_elsewhere(folder):
    os.rename(folder / "img/tom.png", folder / "img/tom\u2028\x0c.png")
    assert scanned(folder, "img/tom\u2028\x0c.png,cat\nimg/rex.png,dog\n").files[0] == "img/tom\u2028\x0c.png"


def test_a_csv_of_other_files_is_refused_after_the_first_thousand(folder, monkeypatch):
    told = []
    with pytest.raises(
        ValueError, match=r"0 images of no class \(1000 skipped, the first is gone0.png: There is no such"
    ):
        scanned(
            folder, "".join(f"gone{i}.png,{i % 2}\n" for i in range(3000)), progress=lambda *done: told.append(done)
        )
    assert told[-1] == (999, 3000)
    monkeypatch.setattr(image_csv, "MOST", 2)
    with pytest.raises(ValueError, match=r"may list at most 2 files. Received: .*pets.csv with more"):
        scanned(folder, ROWS)


def test_a_file_that_is_not_there_or_is_no_path(folder):
    with pytest.raises(ValueError, match="cannot be opened: No such file"):
        scan_csv(folder / "gone.csv")
    with pytest.raises(ValueError, match=r"must be given as a path\. Received: NoneType"):
        scan_csv(None)
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(ValueError, match="no regular file"):
        scan_csv(folder / "pipe.csv")
