"""Pixels of 16 bits: the same from an array as from a file, by way of TIFFs that tell what Pillow reads."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_vit_edu._pixels import from_16_bits, in_range, largest_of_16_bits
from keras_vit_edu.datasets import digit_from_photo, read_image

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


def png_of_16_bits(pixels):
    """A PNG file, written by hand: Pillow writes no colours of 16 bits."""
    height, width, channels = pixels.shape

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("largest", [65535, 4095, 300])
def test_an_array_of_16_bits_is_taken_as_the_file_is(channels, largest, rng, tmp_path):
    pixels = rng.integers(largest // 7, largest, (20, 30, channels)).astype("uint16")
    (tmp_path / "image.png").write_bytes(png_of_16_bits(pixels))
    expected = read_image(tmp_path / "image.png")
    np.testing.assert_array_equal(np.broadcast_to(from_16_bits(pixels), expected.shape), expected)
    np.testing.assert_array_equal(from_16_bits(pixels.astype(">u2")), from_16_bits(pixels))


def test_bytes_times_257_come_back():
    pixels = np.arange(256).reshape(16, 16, 1).repeat(3, axis=-1)
    for some in (pixels, pixels[..., :1]):
        np.testing.assert_array_equal(from_16_bits((some * 257).astype("uint16")), some)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([0, 256], "uint16"), True),
        (np.array([0, 256], ">u2"), True),
        (np.array([0, 255], "uint16"), False),
        (np.array([0, 256], "int16"), False),
        (np.array([0, 256], "uint32"), False),
        (np.array([], "uint16"), False),
    ],
)
def test_which_images_have_16_bits(image, expected):
    assert (largest_of_16_bits([image]) is not None) is expected


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"])
def test_what_is_in_range_stays_as_it_is(dtype):
    image = np.array([0, 1, 255], dtype)
    assert in_range(image) is image


def test_what_rounding_has_moved_beyond_is_put_back():
    pixels = (np.array([0, 255], "float32") - 123.675) / 58.395 * 58.395 + 123.675
    assert in_range(pixels + np.float32([-1e-5, 1e-5])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.array([-1, 5], "int16"), "int16 from -1 to 5"),
        (np.array([0, 256], "int64"), "int64 from 0 to 256"),
        (np.array([0, 2**40]), r"int64 from 0 to 1099511627776"),
        (np.array([-1.0, 1.0]), r"float64 from -1 to 1"),
        (np.array([-0.5, 0.5]), r"float64 from -0\.5 to 0\.5"),
        (np.array([0, 255.5]), r"float64 from 0 to 255\.5"),
        (np.array([0, 1e300]), r"float64 from 0 to 1e\+300"),
        (np.array([0, np.nan, np.inf]), "an image with NaN"),
        (np.array([0, np.inf]), "an image with infinity"),
    ],
)
def test_what_is_beyond_is_refused(image, received):
    with pytest.raises(ValueError, match=rf"Pixels must be .*from 0 to 255.*Received: {received}$"):
        in_range(image)


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_a_digit_is_found_in_a_picture_of_16_bits(channels):
    photo = np.full((120, 100), 230, "uint8")
    photo[20:100, 45:57] = 40
    expected = digit_from_photo(photo)
    photo = photo if channels == 0 else photo[..., None].repeat(channels, axis=-1)
    with pytest.warns(UserWarning, match=r"Pixels of 16 bits are read as from a file.*Received: uint16 up to 59110"):
        found = digit_from_photo(photo.astype("uint16") * 257)
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_array_equal(digit_from_photo(photo.astype("uint16")), expected)


def test_a_file_of_16_bits_takes_memory_of_its_own_size(tmp_path):
    import tracemalloc

    Image.fromarray(np.arange(10**6, dtype="uint16").reshape(1000, 1000)).save(tmp_path / "image.png")
    read_image(tmp_path / "image.png")
    tracemalloc.start()
    try:
        read_image(tmp_path / "image.png")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1000 * 1000
