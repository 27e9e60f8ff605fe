import os
import re
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_vit_edu.datasets import load_images, scan_folder

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]

COLOURS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), "uint8")
PICTURE = Image.fromarray(COLOURS)
links = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
posix = pytest.mark.skipif(os.name == "nt", reason="a name or kind of file that Windows does not have")


def put(folder, *files, image=PICTURE, **options):
    """Write an image under each of the names."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / file, **options)
    return folder


def pets(tmp_path):
    return put(tmp_path / "pets", "dog/rex.png", "cat/tom.jpg", "cat/felix.png")


def refused(folder, message, received):
    """The error over a folder is one line of this text, and ends in what was received."""
    with pytest.raises(ValueError, match=message) as error:
        scan_folder(folder)
    assert "\n" not in str(error.value)
    assert re.search(rf"\. Received: {received}$", str(error.value)), error.value


# What is found. -------------------------------------------------------------------------------------------------------


def test_a_folder_of_two_classes(tmp_path):
    found = scan_folder(pets(tmp_path))
    assert found.class_names == ("cat", "dog")
    assert found.files == ("cat/felix.png", "cat/tom.jpg", "dog/rex.png")
    assert found.labels.dtype == "int32"
    assert found.labels.tolist() == [0, 0, 1]
    assert found.skipped == ()
    assert found.paths[2] == tmp_path / "pets" / "dog" / "rex.png"
    assert repr(found) == f"<3 images of 2 classes in {tmp_path / 'pets'}, 0 skipped>"


def test_the_path_may_be_text(tmp_path):
    assert scan_folder(str(pets(tmp_path))).files == scan_folder(tmp_path / "pets").files


def test_classes_and_files_stand_in_the_order_of_code_points(tmp_path):
    put(tmp_path, "b/10.png", "b/9.png", "b/A.png", "é/1.png", "Z/1.png", "ä/1.png", "z/1.png")
    (tmp_path / "z").rename(tmp_path / "y")  # z and Z would be one class on other systems
    found = scan_folder(tmp_path)
    assert found.class_names == ("Z", "b", "y", "ä", "é")
    assert found.files[1:4] == ("b/10.png", "b/9.png", "b/A.png")


def test_the_order_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    pets(tmp_path)
    listdir = os.listdir
    orders = []
    for reverse in (False, True):
        monkeypatch.setattr(os, "listdir", lambda path, reverse=reverse: sorted(listdir(path), reverse=reverse))
        orders.append(scan_folder(tmp_path / "pets").files)
    assert orders[0] == orders[1]


@posix
def test_accents_that_macos_takes_apart_make_the_same_names_and_order(tmp_path):
    names = ("früh", "fruit", "frz", "été")
    for form in ("NFC", "NFD"):
        put(tmp_path / form, *(unicodedata.normalize(form, f"{name}/é.png") for name in names))
    composed, decomposed = (scan_folder(tmp_path / form) for form in ("NFC", "NFD"))
    assert composed.class_names == decomposed.class_names == ("fruit", "frz", "früh", "été")
    assert decomposed.files == tuple(unicodedata.normalize("NFD", file) for file in composed.files)
    assert all(path.is_file() for path in decomposed.paths)


@posix
@given(names=st.sets(st.text("abcé漢😀ßB _-.", min_size=1, max_size=4).filter(lambda name: name[0] != "."), min_size=2))
def test_any_names_come_in_order(names, tmp_path_factory):
    folded = {unicodedata.normalize("NFC", name.casefold()): name for name in names}
    names = sorted(folded.values())
    folder = tmp_path_factory.mktemp("folder")
    put(folder, "other/1.png", *(f"{name}/{name}.png" for name in names), image=Image.new("L", (1, 1)))
    found = scan_folder(folder)
    assert list(found.class_names) == sorted([*names, "other"])
    assert [found.class_names[label] for label in found.labels] == [file.split("/")[0] for file in found.files]


def test_images_deeper_within_belong_to_the_class_at_the_top(tmp_path):
    pets(tmp_path)
    put(tmp_path / "pets", "cat/2024/may/sleeping.png")
    found = scan_folder(tmp_path / "pets")
    assert found.files == ("cat/2024/may/sleeping.png", "cat/felix.png", "cat/tom.jpg", "dog/rex.png")
    assert found.labels.tolist() == [0, 0, 0, 1]


def test_what_is_hidden_is_passed_over(tmp_path):
    put(pets(tmp_path), ".thumbnails/1.png", "cat/.cache/2.png", "cat/.felix.png")
    (tmp_path / "pets" / ".DS_Store").write_bytes(b"x")
    found = scan_folder(tmp_path / "pets")
    assert found.class_names == ("cat", "dog")
    assert len(found.files) == 3
    assert found.skipped == ()


@links
def test_links_to_files_and_folders_are_followed(tmp_path):
    pets(tmp_path)
    put(tmp_path / "elsewhere", "lion.png")
    (tmp_path / "pets" / "lion").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pets" / "cat" / "lion.png").symlink_to(tmp_path / "elsewhere" / "lion.png")
    found = scan_folder(tmp_path / "pets")
    assert {"lion/lion.png", "cat/lion.png"} <= set(found.files)


def test_progress_is_told_after_every_file(tmp_path):
    (pets(tmp_path) / "cat" / "notes.txt").write_text("meow")
    told = []
    scan_folder(tmp_path / "pets", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# Images of every kind. ------------------------------------------------------------------------------------------------


def test_every_image_that_can_be_read_is_taken(tmp_path):
    folder = put(pets(tmp_path), "cat/a.gif", "cat/a.bmp", "cat/a.tif", "cat/a.webp", "cat/upper.JPG")
    put(folder, "cat/no_suffix", format="PNG")
    put(folder, "cat/wrong_suffix.txt", format="PNG")
    put(folder, "cat/moves.gif", save_all=True, append_images=[Image.new("RGB", (60, 40), "red")])
    put(folder, "cat/cmyk.jpg", image=PICTURE.convert("CMYK"))
    put(folder, "cat/16_bits.png", image=Image.fromarray(COLOURS[..., 0].astype("uint16") * 256))
    put(folder, "cat/alpha.png", image=PICTURE.convert("RGBA"))
    put(folder, "cat/one_pixel.png", image=Image.new("1", (1, 1)))
    found = scan_folder(folder)
    assert found.skipped == ()
    assert len(found.files) == 3 + 12
    shapes = {file: image.shape for file, image in zip(found.files, load_images(found), strict=True)}
    assert shapes.pop("cat/one_pixel.png") == (1, 1, 3)
    assert set(shapes.values()) == {(40, 60, 3)}


def huge(file):
    put(file.parent, file.name, image=Image.new("L", (1, 1)))
    content = bytearray(file.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)


def cut_off(file):
    put(file.parent, file.name, format="JPEG")
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("break_file", "reason", "seen_in_the_header"),
    [
        (lambda file: file.write_bytes(b""), "The file is empty", True),
        (lambda file: file.write_text("meow"), "This is no image file that Pillow knows", True),
        (huge, "Images have at most 89,478,485 pixels", True),
        (cut_off, "The image cannot be read: .*truncated.*", False),
    ],
    ids=["empty", "text", "huge", "cut off"],
)
def test_a_file_that_cannot_be_read_is_skipped_and_told(break_file, reason, seen_in_the_header, tmp_path):
    break_file(pets(tmp_path) / "cat" / "broken.png")
    found = scan_folder(tmp_path / "pets")
    assert found.files == ("cat/felix.png", "cat/tom.jpg", "dog/rex.png")
    ((file, told),) = found.skipped
    assert file == "cat/broken.png"
    assert re.fullmatch(reason, told)
    assert (len(scan_folder(tmp_path / "pets", decode=False).files) == 3) == seen_in_the_header


def test_a_file_that_may_not_be_opened_is_skipped(tmp_path, monkeypatch):
    # Not by its permissions: they do not bind root, who runs the tests in many a container.
    def open_other(file, *arguments, opened=Image.open, **options):
        if Path(file).name == "tom.jpg":
            raise PermissionError(13, "Permission denied")
        return opened(file, *arguments, **options)

    monkeypatch.setattr(Image, "open", open_other)
    found = scan_folder(pets(tmp_path))
    assert found.skipped == (("cat/tom.jpg", "The image cannot be read: [Errno 13] Permission denied"),)


def test_a_folder_that_may_not_be_opened_is_skipped(tmp_path, monkeypatch):
    put(pets(tmp_path), "cat/closed/1.png")

    def list_other(path, listdir=os.listdir):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", list_other)
    found = scan_folder(tmp_path / "pets")
    assert found.skipped == (("cat/closed", "The folder cannot be opened: Permission denied"),)
    monkeypatch.setattr(os, "listdir", lambda path: list_other("closed"))
    refused(tmp_path / "pets", "The folder cannot be opened: Permission denied", re.escape(str(tmp_path / "pets")))


def test_files_beside_the_subfolders_have_no_class(tmp_path):
    put(pets(tmp_path), "cover.png")
    found = scan_folder(tmp_path / "pets")
    assert found.skipped == (("cover.png", "The file lies in no subfolder, so it has no class"),)


def test_a_subfolder_without_images_makes_no_class(tmp_path):
    put(pets(tmp_path), "__MACOSX/._tom.png")
    (tmp_path / "pets" / "notes").mkdir()
    (tmp_path / "pets" / "notes" / "a.txt").write_text("meow")
    put(tmp_path / "pets", "zebra/1.png", "zebra/2.png")
    found = scan_folder(tmp_path / "pets")
    assert found.class_names == ("cat", "dog", "zebra")
    assert found.labels.tolist() == [0, 0, 1, 2, 2]
    assert found.skipped == (
        ("__MACOSX", "The folder holds no image, so it makes no class"),
        ("notes", "The folder holds no image, so it makes no class"),
        ("notes/a.txt", "This is no image file that Pillow knows"),
    )


@posix
def test_no_ordinary_files_are_skipped(tmp_path):
    os.mkfifo(pets(tmp_path) / "cat" / "pipe")
    (tmp_path / "pets" / "cat" / "gone.png").symlink_to(tmp_path / "nothing")
    found = scan_folder(tmp_path / "pets")
    reason = "This is no ordinary file, or a link to nothing"
    assert found.skipped == (("cat/gone.png", reason), ("cat/pipe", reason))


@posix
def test_a_name_that_is_no_unicode_is_skipped_and_can_be_printed(tmp_path):
    folder = os.fsencode(pets(tmp_path))
    try:
        (Path(os.fsdecode(folder + b"/cat/caf\xe9.png"))).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has no such names")
    found = scan_folder(tmp_path / "pets")
    assert found.skipped == (("cat/caf\\udce9.png", "The name is no valid Unicode"),)


# What is refused. -----------------------------------------------------------------------------------------------------


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    refused(tmp_path / "nothing", "There is no such folder", re.escape(str(tmp_path / "nothing")))
    too_long = tmp_path / ("x" * 300)
    refused(too_long, "There is no such folder", re.escape(str(too_long)))
    put(tmp_path, "image.png")
    refused(tmp_path / "image.png", "A file is no folder of images", re.escape(str(tmp_path / "image.png")))


def test_a_folder_of_nothing(tmp_path):
    refused(tmp_path, "images of two classes or more", ".* with 0 images of no class")


def test_images_without_subfolders(tmp_path):
    put(tmp_path, "1.png", "2.png")
    refused(tmp_path, "one subfolder per class", r".* with 0 images of no class \(2 skipped, the first is 1.png: .*\)")


def test_one_class(tmp_path):
    put(tmp_path, "cat/1.png", "cat/2.png")
    refused(tmp_path, "images of two classes or more", ".* with 2 images of cat")


def test_fewer_images_than_subfolders(tmp_path):
    put(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "mouse").mkdir()
    refused(
        tmp_path,
        "Every class needs at least one image in its subfolder",
        r".* with 2 images in 3 subfolders \(1 skipped, .* mouse: .*\)",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [("Cat", "cat"), ("ÉTÉ", "été"), ("é", "e\N{COMBINING ACUTE ACCENT}"), ("Straße", "STRASSE")],
)
def test_two_classes_that_other_systems_take_for_one(first, second, tmp_path):
    put(tmp_path, f"{first}/1.png", f"{second}/1.png", "dog/1.png")
    if len(os.listdir(tmp_path)) < 3:
        pytest.skip("this file system takes them for one")
    refused(tmp_path, "differ only in case", rf"('{first}' and '{second}'|'{second}' and '{first}') in .*")


@links
@pytest.mark.parametrize(
    ("link", "target"),
    [("cat/again", "cat"), ("cat/up", "."), ("all", "."), ("above", ".."), ("cat/above", ".."), ("cat/a/b/c", "cat/a")],
)
def test_a_link_back_to_a_folder_it_lies_in_is_skipped(link, target, tmp_path):
    folder = pets(tmp_path)
    (folder / link).parent.mkdir(parents=True, exist_ok=True)
    (folder / link).symlink_to(folder / target)
    found = scan_folder(folder)
    assert found.files == ("cat/felix.png", "cat/tom.jpg", "dog/rex.png")
    assert found.skipped == ((link, "The link leads in a circle, to a folder that it lies in"),)


@links
@pytest.mark.parametrize("link", ["me", "cat/me"])
def test_a_link_to_itself_is_skipped(link, tmp_path):
    (pets(tmp_path) / link).symlink_to(tmp_path / "pets" / link)
    found = scan_folder(tmp_path / "pets")
    assert len(found.files) == 3
    assert found.skipped == ((link, "The link leads in a circle, to itself"),)


@links
def test_two_links_that_lead_to_each_other_are_skipped(tmp_path):
    (pets(tmp_path) / "cat" / "a.png").symlink_to(tmp_path / "pets" / "cat" / "b.png")
    (tmp_path / "pets" / "cat" / "b.png").symlink_to(tmp_path / "pets" / "cat" / "a.png")
    found = scan_folder(tmp_path / "pets")
    assert [name for name, _ in found.skipped] == ["cat/a.png", "cat/b.png"]
    assert {reason for _, reason in found.skipped} == {"The link leads in a circle, to itself"}


@pytest.mark.parametrize("path", [None, 3, b"pets", "", ["pets"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match=r"must be given as a path\. Received: "):
        scan_folder(path)


@posix
def test_a_name_with_control_characters_is_escaped_in_the_message(tmp_path):
    refused(
        put(tmp_path / "pets\x1b[2J\n", "ca\nt/1.png"),
        "two classes or more",
        r".*pets\\x1b\[2J\\n with 1 images of ca\\nt",
    )
