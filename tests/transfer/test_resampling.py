"""Images at another size: against cases worked by hand, and against Pillow."""

import tracemalloc

import numpy as np
import pytest

from keras_vit_edu.transfer.resampling import INTERPOLATIONS, contributions, resize, resize_as_pillow

pytestmark = pytest.mark.any_backend

SIZES = [(61, 83), (10, 7), (32, 24), (50, 1), (1, 50)]  # larger, smaller, the size itself, one pixel wide, one high


def row(*values):
    return np.array(values, "float64").reshape(1, -1, 1)


@pytest.mark.parametrize(
    ("old", "interpolation", "antialias", "new"),
    [
        (row(0, 100), "nearest", False, [0, 0, 100, 100]),
        (row(0, 1, 2, 3, 4), "nearest", False, [0, 2, 4]),  # at 1/3, 2, 11/3 of the five
        (row(0, 1, 2, 3), "nearest", True, [1, 3]),
        (row(0, 100), "bilinear", False, [0, 25, 75, 100]),
        (row(0, 100), "bilinear", True, [0, 25, 75, 100]),  # it grows: nothing to antialias
        (row(8, 0, 0, 0), "bilinear", False, [4, 0]),
        (row(7, 0, 0, 0), "bilinear", True, [3, 0]),  # weights 3, 3, 1 of 7, what is beyond the edge left out
        # Keys at a distance of 1/2 and 3/2: 9/16 and -1/16.
        (row(0, 0, 0, 16, 0, 0, 0, 0), "bicubic", False, [0, 9, -1, 0]),
    ],
)
def test_a_row_of_pixels_worked_by_hand(old, interpolation, antialias, new):
    resized = resize(old, (1, len(new)), interpolation, antialias)
    np.testing.assert_allclose(resized.ravel(), new, atol=1e-12)


def test_columns_are_resized_as_rows_are(rng):
    image = rng.random((5, 9, 3))
    turned = resize(image.swapaxes(0, 1), (4, 7), "bicubic", True).swapaxes(0, 1)
    np.testing.assert_allclose(resize(image, (7, 4), "bicubic", True), turned, atol=1e-12)


@pytest.mark.parametrize("padding", [(0, 0), (0, 900)])
def test_a_strip_of_many_columns_takes_no_more_memory_than_one_of_many_rows(padding, rng):
    strip = rng.random((2, 60_000, 1))
    turned = resize(strip.swapaxes(0, 1), (5, 200), "bilinear", True, padding[::-1]).swapaxes(0, 1)
    tracemalloc.start()
    resized = resize(strip, (200, 5), "bilinear", True, padding)  # 200 rows of 60,000 columns are 96 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(resized, turned, atol=1e-12)
    assert peak < 48e6


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_an_image_of_the_size_itself_stays(interpolation, antialias, rng):
    image = rng.random((6, 5, 3))
    np.testing.assert_allclose(resize(image, (6, 5), interpolation, antialias), image, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_plain_image_stays_plain(interpolation, antialias, size):
    image = np.full((*size, 1), 200, "uint8")
    np.testing.assert_allclose(resize(image, (32, 24), interpolation, antialias), 200, atol=1e-10)


@pytest.mark.parametrize("old", [1, 2, 13, 224, 1000])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_contributions_are_of_pixels_that_there_are(interpolation, old):
    indices, weights = contributions(old, 17, interpolation, True)
    assert indices.min() >= 0
    assert indices.max() < old
    np.testing.assert_allclose(weights.sum(axis=1), 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("interpolation", "filter_name"), [("bilinear", "BILINEAR"), ("bicubic", "BICUBIC"), ("lanczos3", "LANCZOS")]
)
def test_antialiased_pixels_are_pillows(interpolation, filter_name, size, rng):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = rng.integers(0, 256, size).astype("float32")
    pillow = image_module.fromarray(image).resize((24, 32), getattr(image_module.Resampling, filter_name))
    np.testing.assert_allclose(resize(image[..., None], (32, 24), interpolation, True)[..., 0], pillow, atol=1e-3)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("antialias", [False, True])
def test_padding_is_as_if_it_were_there(interpolation, antialias):
    image = np.random.default_rng(0).integers(0, 256, (7, 30, 3)).astype("uint8")
    for padding, size in (((11, 0), (8, 8)), ((0, 3), (20, 40)), ((300, 1), (9, 5))):
        above, beside = padding
        padded = np.pad(image, ((above, above), (beside, beside), (0, 0)))
        np.testing.assert_allclose(
            resize(image, size, interpolation, antialias, padding),
            resize(padded, size, interpolation, antialias),
            atol=1e-10,
        )


@pytest.mark.parametrize(
    ("number", "interpolation"), [(0, "nearest"), (1, "lanczos3"), (2, "bilinear"), (3, "bicubic")]
)
def test_resizing_as_pillow_gives_the_bits_of_pillow(number, interpolation, rng):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed", exc_type=ImportError)
    PIL = pytest.importorskip("PIL")
    if int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 resizes rows and columns of some images in another order, and rounds in between")
    sizes = [((40, 50), (31, 60)), ((64, 24), (24, 20)), ((30, 90), (45, 45)), ((9, 9), (30, 20)), ((50, 40), (50, 13))]
    for old, new in [*sizes, ((100, 30), (20, 28)), ((100, 30), (20, 60))]:
        image = rng.integers(0, 256, (*old, 3)).astype("uint8")
        expected = np.asarray(Image.fromarray(image).resize(new[::-1], number))
        np.testing.assert_array_equal(resize_as_pillow(image, new, interpolation), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_window_is_a_part_of_the_whole_and_black_beyond(interpolation, rng):
    image = rng.integers(0, 256, (20, 30, 3)).astype("uint8")
    for function in (resize, resize_as_pillow) if interpolation != "lanczos5" else (resize,):
        whole = np.pad(function(image, (13, 40), interpolation), ((5, 5), (5, 5), (0, 0)))
        found = function(image, (13, 40), interpolation, window=(-4, 6, 20, 36))
        np.testing.assert_allclose(found, whole[1:21, 11:47], atol=1e-9)


def test_a_strip_takes_little_memory_as_pillow_does_it():
    strip = np.full((1_000_000, 1, 3), 7, "uint8")
    tracemalloc.start()
    try:
        resized = resize_as_pillow(strip, (224, 224), "bicubic")
        assert tracemalloc.get_traced_memory()[1] < 700e6
    finally:
        tracemalloc.stop()
    assert (resized == 7).all()
