import io
import re
import struct
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_vit_edu._install import install_command
from keras_vit_edu.datasets import image_file, read_image

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]

# A dark L on light paper, (H, W) = (20, 30): every turn or mirror image of it is another picture.
GREY = np.full((20, 30), 200, "uint8")
GREY[4:16, 6:9] = 40
GREY[13:16, 6:20] = 40
RGB = np.stack([GREY, GREY // 2, GREY // 4], axis=-1)


def read(image, tmp_path, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["image.png", "image.bmp", "image.gif", "image.tif", "image.webp", "no_suffix"])
def test_a_grey_picture_becomes_three_equal_channels(name, tmp_path):
    options = {"lossless": True} if name.endswith("webp") else {} if "." in name else {"format": "PNG"}
    pixels = read(Image.fromarray(GREY), tmp_path, name, **options)
    assert pixels.dtype == "uint8"
    np.testing.assert_array_equal(pixels, np.repeat(GREY[..., None], 3, axis=-1))


def test_colour_and_palette_keep_their_colours(tmp_path):
    np.testing.assert_array_equal(read(Image.fromarray(RGB), tmp_path), RGB)
    np.testing.assert_array_equal(read(Image.fromarray(RGB).convert("P", palette=1, colors=4), tmp_path), RGB)


def test_one_bit_is_black_and_white(tmp_path):
    pixels = read(Image.fromarray(GREY > 100), tmp_path)
    np.testing.assert_array_equal(pixels[..., 0], np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bits_are_stretched_to_the_range_they_use(name, tmp_path):
    twelve_bits = GREY.astype("uint16") * 16  # 640 to 3200
    pixels = read(Image.fromarray(twelve_bits), tmp_path, name)
    np.testing.assert_array_equal(pixels[..., 1], np.where(GREY == 200, 255, 0))


def test_floats_are_stretched_and_must_be_finite(tmp_path):
    pixels = read(Image.fromarray(GREY.astype("float32") / 255), tmp_path, "image.tif")
    np.testing.assert_array_equal(pixels[..., 2], np.where(GREY == 200, 255, 0))
    broken = np.where(GREY == 40, np.nan, GREY).astype("float32")
    with pytest.raises(ValueError, match="no finite numbers"):
        read(Image.fromarray(broken), tmp_path, "image.tif")


@pytest.mark.parametrize(("ink", "paper"), [(10, 255), (240, 0)])
def test_what_is_transparent_contrasts_with_the_drawing(ink, paper, tmp_path):
    opacity = np.where(GREY == 40, 255, 0).astype("uint8")
    shades = np.full_like(GREY, ink)
    for image in (
        Image.fromarray(np.stack([shades, shades, shades, opacity], axis=-1)),
        Image.merge("LA", [Image.fromarray(shades), Image.fromarray(opacity)]),
    ):
        np.testing.assert_array_equal(read(image, tmp_path)[..., 0], np.where(GREY == 40, ink, paper))


def test_a_transparent_colour_of_a_palette(tmp_path):
    image = Image.fromarray(np.where(GREY == 40, 1, 0).astype("uint8")).convert("P")
    image.putpalette([255, 0, 0, 20, 20, 20])
    pixels = read(image, tmp_path, transparency=0)
    np.testing.assert_array_equal(pixels[..., 0], np.where(GREY == 40, 20, 255))


def test_cmyk_jpeg(tmp_path):
    large = np.kron(RGB, np.ones((8, 8, 1), "uint8"))
    pixels = read(Image.fromarray(large).convert("CMYK"), tmp_path, "image.jpg", quality=95)
    assert np.abs(pixels.astype(int) - large).mean() < 3


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif", "image.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(orientation, name, tmp_path):
    # How the camera stored what should be seen, by the EXIF standard's meaning of each number.
    stored = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"image.webp": {"lossless": True}, "image.jpg": {"quality": 95}}.get(name, {})
    pixels = read(Image.fromarray(stored.copy()), tmp_path, name, exif=exif, **options)[..., 0]
    assert pixels.shape == GREY.shape
    assert np.abs(pixels.astype(int) - GREY).mean() < (3 if name == "image.jpg" else 1e-9)


def exif_that_pillow_cannot_rewrite():
    """Turned by a quarter, and a unit of resolution that is text instead of a number: Pillow reads it, and no more."""
    fields = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x0128, 2, 1, b"i")
    return b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(4)


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.webp"])
def test_exif_that_pillow_cannot_rewrite_turns_the_photo_all_the_same(name, tmp_path):
    exif = exif_that_pillow_cannot_rewrite()
    options = {"lossless": True} if name == "image.webp" else {"quality": 95}
    pixels = read(Image.fromarray(np.rot90(RGB)), tmp_path, name, exif=exif, **options)
    with pytest.raises(struct.error), Image.open(tmp_path / name) as image:
        ImageOps.exif_transpose(image)
    assert pixels.shape == RGB.shape
    assert np.abs(pixels.astype(int) - RGB).mean() < 8


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.webp"])
@pytest.mark.parametrize(
    "exif", [b"nonsense", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09ab"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_sound_pixels_are_not_refused_for_their_exif(exif, name, tmp_path):
    options = {"lossless": True} if name == "image.webp" else {}
    assert read(Image.fromarray(RGB), tmp_path, name, exif=exif, **options).shape == RGB.shape


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_nor_those_of_a_tiff_whose_exif_lies_beyond_its_end(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 10:00:00"
    Image.fromarray(RGB).save(tmp_path / "image.tif", exif=exif.tobytes())
    content = bytearray((tmp_path / "image.tif").read_bytes())
    place = content.find(struct.pack("<HHI", 0x8769, 4, 1))
    if place < 0:
        pytest.skip("this version of Pillow writes no pointer to the EXIF into a TIFF")
    pointer = place + 8
    content[pointer : pointer + 4] = struct.pack("<I", 2**31)
    (tmp_path / "image.tif").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "image.tif"), RGB)


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(255 - GREY)]
    pixels = read(Image.fromarray(GREY), tmp_path, "image.gif", save_all=True, append_images=frames)
    np.testing.assert_array_equal(pixels[..., 0], GREY)


def huge_png():
    """A PNG of 33 bytes or so that claims 60,000 x 60,000 pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def png_of(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def truncated_jpeg():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), "uint8")).save(buffer, "JPEG")
    return buffer.getvalue()[:5000]


def damaged_png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), "uint8")).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[500:600] = bytes(100)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "The file is empty"),
        (b"print('no image')", "no image file that Pillow knows"),
        (huge_png(), "at most 89,478,485 pixels"),
        (png_of(1_000_001, 1), "a side of it has more than 1,000,000 pixels"),
        (truncated_jpeg(), "cannot be read: .*truncated"),
        (damaged_png(), "cannot be read: "),
        (b"\x89PNG\r\n\x1a\n", "no image file|cannot be read"),
    ],
    ids=["empty", "text", "huge", "wide", "truncated JPEG", "damaged PNG", "a PNG's first bytes"],
)
def test_a_file_that_is_no_image(content, complaint, tmp_path):
    file = tmp_path / "file.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{complaint}.*\. Received: {re.escape(str(file))}$"):
        read_image(file)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pillows_limit_holds_from_its_first_pixel_on(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size)
    assert read_image(tmp_path / "image.png").shape == (20, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)  # Pillow alone would only warn, up to twice as many
    with pytest.raises(ValueError, match="at most 599 pixels"):
        read_image(tmp_path / "image.png")


def test_the_limit_holds_whatever_becomes_of_warnings(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="at most 599 pixels"):
            read_image(tmp_path / "image.png")


def test_files_that_several_threads_have_open_leave_the_filters_of_warnings_alone(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "image.png")
    before = list(warnings.filters)
    first, second = (image_file._opened(tmp_path / "image.png") for _ in range(2))
    for one in (first, second):
        one.__enter__()
    for one in (first, second):  # not the other way round, as in one thread
        one.__exit__(None, None, None)
    assert warnings.filters == before


def test_a_transparent_image_takes_memory_of_its_own_size(tmp_path):
    Image.new("RGBA", (1000, 1000), (0, 0, 0, 100)).save(tmp_path / "image.png")
    read_image(tmp_path / "image.png")
    tracemalloc.start()
    try:
        read_image(tmp_path / "image.png")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1000 * 1000  # four bytes a pixel are the image itself


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"There is no such file. Received: .*nothing.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"A folder is no image file. Received: "):
        read_image(tmp_path)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=re.escape(install_command("cli"))):
        read_image(tmp_path / "image.png")
