"""Streams, images of Pillow, HEIC, and what is no image file at all."""

import io
import os
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu.datasets import image_source, load_images, read_image

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), "uint8")


def png(image=None):
    stream = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(stream, "PNG")
    return stream  # it stands at its end


# Streams. -------------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_from_its_beginning_and_again(tmp_path):
    stream = png()
    for _ in range(2):
        np.testing.assert_array_equal(read_image(stream), PIXELS)
    (tmp_path / "image").write_bytes(stream.getvalue())
    with open(tmp_path / "image", "rb") as file:
        np.testing.assert_array_equal(read_image(file), PIXELS)
    with open(tmp_path / "image", "rb", buffering=0) as file:
        np.testing.assert_array_equal(read_image(file), PIXELS)


def test_one_stream_may_be_read_by_several_threads():
    stream = png()
    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(read_image, [stream] * 64):
            np.testing.assert_array_equal(pixels, PIXELS)


def test_a_slow_stream_keeps_no_other_waiting():
    begun, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size=-1):
            begun.set()
            assert go_on.wait(60)
            return super().read(size)

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(read_image, Slow(png().getvalue()))
        assert begun.wait(60)
        try:
            np.testing.assert_array_equal(pool.submit(read_image, png()).result(timeout=60), PIXELS)
        finally:
            go_on.set()
        np.testing.assert_array_equal(slow.result(), PIXELS)


class Endless(io.RawIOBase):
    given = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        self.given += len(buffer)
        return len(buffer)


def test_a_stream_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(image_source, "LARGEST_STREAM", 10 << 20)
    stream = Endless()
    with pytest.raises(ValueError, match=r"at most 10,485,760 bytes. Received: a Endless with more"):
        read_image(stream)
    assert stream.given <= 12 << 20


def closed():
    stream = png()
    stream.close()
    return stream


class Coroutine:
    async def read(self, size):
        return b""

    def seekable(self):
        return False


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (io.StringIO("text"), "cannot be read: .*; a file must be opened in binary mode. Received: a StringIO"),
        (closed(), "cannot be read: .*closed file. Received: a BytesIO"),
        (io.BytesIO(), "The file is empty. Received: a BytesIO"),
        (io.BytesIO(b"text"), "no image file that Pillow knows. Received: a BytesIO"),
        (io.BytesIO(png().getvalue()[:-100]), "cannot be read: .*. Received: a BytesIO"),
        (Coroutine(), "cannot be read: .*. Received: a Coroutine"),
        (types.SimpleNamespace(read=lambda size: b""), "cannot be read: .*. Received: a SimpleNamespace"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_stream_that_is_no_image(stream, message):
    with pytest.raises(ValueError, match=message):
        read_image(stream)


def test_a_file_is_called_by_its_name_with_control_characters_escaped(tmp_path):
    if os.name == "nt":
        pytest.skip("a name that Windows does not have")
    (tmp_path / "a\x1b[2J\n.png").write_bytes(b"no image")
    for file in (tmp_path / "a\x1b[2J\n.png", open(tmp_path / "a\x1b[2J\n.png", "rb")):  # noqa: SIM115
        with pytest.raises(ValueError, match=r"Received: .*a\\x1b\[2J\\n\.png$"):
            read_image(file)


# Images of Pillow. ----------------------------------------------------------------------------------------------------


def test_an_image_of_pillow_is_read_as_its_file_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_image(Image.open(tmp_path / "image.png")), np.rot90(PIXELS, -1))
    np.testing.assert_array_equal(read_image(Image.fromarray(PIXELS)), PIXELS)
    grey = Image.fromarray(PIXELS[..., 0].astype("uint16") * 16)
    assert read_image(grey).min() == 0
    assert read_image(grey).max() == 255


def test_an_image_of_pillow_stays_open_and_may_be_read_by_several_threads(tmp_path):
    for name in ("image.png", "image.tif"):
        Image.fromarray(PIXELS).save(tmp_path / name)
        with Image.open(tmp_path / name) as image, ThreadPoolExecutor(8) as pool:
            for pixels in pool.map(read_image, [image] * 16):
                np.testing.assert_array_equal(pixels, PIXELS)
            assert image.filename == str(tmp_path / name)


def test_one_that_cannot_be_decoded_is_refused():
    image = Image.open(io.BytesIO(png().getvalue()[:-100]))
    with pytest.raises(ValueError, match=r"The image cannot be read: .*\. Received: a PngImageFile$"):
        read_image(image)


# What is none of these. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "must be given as a path. Received: NoneType"),
        (3, "must be given as a path. Received: int"),
        (b"photo.jpg", "must be given as a path. Received: bytes"),
        (["photo.jpg"], "must be given as a path. Received: list"),
        ("", "must be given as a path. Received: an empty text"),
        ("a\0b.png", r"There is no such file. Received: a\\x00b.png"),
        ("x" * 5000, "There is no such file. Received: x"),
        ("\udcff.png", r"There is no such file. Received: \\udcff.png"),
    ],
)
def test_what_is_no_image_file(file, message):
    with pytest.raises(ValueError, match=message):
        read_image(file)


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no such pipes")
    os.mkfifo(tmp_path / "pipe")
    for call in (read_image, lambda file: list(load_images([file]))):
        with pytest.raises(ValueError, match=r"This is no ordinary file. Received: .*pipe$"):
            call(tmp_path / "pipe")


# HEIC. ----------------------------------------------------------------------------------------------------------------


def box(major, *compatible):
    brands = major + bytes(4) + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(64)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (box(b"heic", b"mif1", b"heic"), "HEIC"),
        (box(b"mif1", b"heic"), "HEIC"),
        (box(b"msf1", b"hevc"), "HEIC"),
        (box(b"avif", b"mif1"), "AVIF"),
        (box(b"mif1", b"avif"), "AVIF"),
        (box(b"isom", b"mp42"), None),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_the_kind(head, kind, tmp_path):
    assert image_source.heif_kind(io.BytesIO(head)) == kind
    (tmp_path / "image").write_bytes(head)
    assert image_source.heif_kind(str(tmp_path / "image")) == kind


@pytest.fixture
def forgetful():
    """Whether there is pillow-heif is looked at again, before and after."""
    image_source.can_read_heif.cache_clear()
    yield
    image_source.can_read_heif.cache_clear()


def test_without_pillow_heif_the_message_names_it(forgetful, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("HEIF", "AVIF")])
    (tmp_path / "photo.jpg").write_bytes(box(b"heic", b"mif1", b"heic"))
    with pytest.raises(ValueError, match=r"HEIC files with a plugin: pip install pillow-heif. Received: .*photo.jpg$"):
        read_image(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match=r"AVIF files with a plugin: pip install pillow-heif \(AVIF also with Pillow"):
        read_image(io.BytesIO(box(b"avif", b"mif1")))


def test_heic_with_pillow_heif(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    ramp = np.tile(np.linspace(0, 255, 64, dtype="uint8")[None, :, None], (48, 1, 3)).copy()
    ramp[:10] = 255
    pillow_heif.from_bytes("RGB", (64, 48), ramp.tobytes()).save(tmp_path / "upright.heic", quality=95)
    assert np.abs(read_image(tmp_path / "upright.heic").astype(int) - ramp).mean() < 1
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(ramp).save(tmp_path / "turned.heic", quality=95, exif=turned.tobytes())  # Pillow knows HEIC by now
    assert np.abs(read_image(tmp_path / "turned.heic").astype(int) - np.rot90(ramp, -1)).mean() < 1
    content = (tmp_path / "upright.heic").read_bytes()
    assert read_image(io.BytesIO(content)).shape == (48, 64, 3)
    with pytest.raises(ValueError, match=r"The image cannot be read: .*HEIC is damaged"):
        read_image(io.BytesIO(content[:300]))
