import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from keras_vit_edu.datasets import digit_from_photo, load
from keras_vit_edu.digits.neighbours import connected
from tests.drawings import FONTS, INK, PAPER, printed, written

pytestmark = pytest.mark.any_backend  # NumPy alone

FIVE = written(5, seed=1)


def centre_of_mass(digit):
    grey = digit[..., 0].astype("float64")
    return [grey.sum(axis=axis) @ np.arange(28) / grey.sum() for axis in (1, 0)]


def longer_side(digit):
    rows, columns = np.nonzero(digit[..., 0])
    return max(np.ptp(rows), np.ptp(columns)) + 1


def difference(photo, reference=FIVE):
    """Mean absolute difference between what becomes of two pictures, of 0 to 1; of two digits it is 0.1 or so.

    Which whole pixel the centre of mass comes to may be a matter of rounding, so a shift by one pixel is allowed.
    """
    first, second = digit_from_photo(photo)[..., 0], digit_from_photo(reference)[..., 0]
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(float(np.abs(np.roll(first, shift, axis=(0, 1)) - second).mean()) for shift in shifts)


def drawn_on(photo, draw):
    image = Image.fromarray(photo)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def test_a_bar_by_hand():
    """200 x 40 pixels fit the box as 20 x 4; whole pixels, so no grey; columns 12 to 15 have their middle at 13.5."""
    photo = np.full((300, 400), PAPER, "uint8")
    photo[50:250, 300:340] = INK
    expected = np.zeros((28, 28, 1), "float32")
    expected[4:24, 12:16] = 1
    digit = digit_from_photo(photo)
    assert digit.dtype == "float32"
    np.testing.assert_allclose(digit, expected, atol=1e-6)


def test_the_last_digits_of_floats_are_no_ink():
    photo = np.full((300, 400), PAPER / 255)
    photo[50:250, 300:340] = INK / 255
    clean = digit_from_photo(photo)
    photo[49, 300:340] -= 1e-12  # as the paper, fitted and subtracted, is left with on some processors
    np.testing.assert_allclose(digit_from_photo(photo), clean, atol=1e-6)


def test_the_centre_of_mass_decides_not_the_middle_of_the_box():
    """A 7 of two bars: 20 x 4 pixels in MNIST's form above, 16 x 4 below it on the right."""
    photo = np.full((300, 300), PAPER, "uint8")
    photo[50:90, 50:250] = INK
    photo[90:250, 210:250] = INK
    # Rows 0 to 19: the mean is (80 * 1.5 + 64 * 11.5) / 144 = 5.94, so row 0 comes to row 14 - 5.94 = 8 (rounded);
    # columns: (80 * 9.5 + 64 * 17.5) / 144 = 13.06, so column 0 to column 1.
    expected = np.zeros((28, 28), "float32")
    expected[8:12, 1:21] = 1
    expected[12:28, 17:21] = 1
    np.testing.assert_allclose(digit_from_photo(photo)[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("digit", range(10))
def test_mnists_form(digit):
    for photo in (written(digit, seed=2, size=60), printed(digit, "cmr10", size=200)):
        found = digit_from_photo(photo)
        assert found.shape == (28, 28, 1)
        assert found.min() == 0
        assert 0.9 < found.max() <= 1
        assert longer_side(found) == 20
        np.testing.assert_allclose(centre_of_mass(found), 14, atol=0.5)


def test_mnists_own_images_come_out_as_they_were():
    images = load("mnist-sample").x_test[:60]
    apart = np.abs(np.stack([digit_from_photo(image) for image in images]) - images / 255)
    assert apart.mean() < 0.001
    assert (apart.max(axis=(1, 2, 3)) < 0.1).mean() >= 0.99


def test_light_on_dark_is_dark_on_light():
    np.testing.assert_allclose(digit_from_photo(255 - FIVE), digit_from_photo(FIVE), atol=0.02)


@pytest.mark.parametrize("size", [40, 900])
def test_size_and_place_do_not_matter(size):
    large = Image.fromarray(written(5, seed=1, size=400))
    photo = np.full((2000, 2400), PAPER, "uint8")
    photo[100 : 100 + 2 * size, 500 : 500 + 2 * size] = large.resize((2 * size, 2 * size), Image.Resampling.BOX)
    assert difference(photo) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_and_channels(dtype):
    np.testing.assert_allclose(digit_from_photo((FIVE / 255).astype(dtype)), digit_from_photo(FIVE), atol=1e-5)
    np.testing.assert_array_equal(digit_from_photo(FIVE[..., None]), digit_from_photo(FIVE))
    np.testing.assert_array_equal(digit_from_photo(np.repeat(FIVE[..., None], 3, axis=-1)), digit_from_photo(FIVE))


@pytest.mark.parametrize(
    ("paper", "ink"),
    [((250, 245, 235), (250, 230, 20)), ((0, 128, 0), (255, 0, 0)), ((30, 60, 160), (240, 220, 60))],
    ids=["yellow on white", "red on a green as bright", "yellow on blue"],
)
def test_colours(paper, ink):
    share = ((PAPER - FIVE.astype("float64")) / (PAPER - INK))[..., None]
    photo = np.uint8(np.round(share * ink + (1 - share) * np.array(paper)))
    assert difference(photo) < 0.01


def with_noise(photo, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, photo.shape)
    return np.uint8(np.clip(photo + noise, 0, 255))


def as_jpeg(photo, quality):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


Y, X = np.mgrid[0:1:320j, 0:1:320j]
SPECKS = np.random.default_rng(1).random(FIVE.shape) < 0.02
ON_TABLE = np.full((520, 640), 60, "uint8")
ON_TABLE[60:380, 100:420] = FIVE
BESIDE_TABLE = np.full((400, 420), 60, "uint8")
BESIDE_TABLE[:320, :320] = FIVE
ROWS = np.flatnonzero((FIVE < 128).any(axis=1))
COLUMNS = np.flatnonzero((FIVE < 128).any(axis=0))
BROKEN = FIVE.copy()
BROKEN[ROWS[0] + 24 : ROWS[0] + 34] = PAPER  # the bar of the 5 comes off
HARMLESS = {
    "a shadow": np.uint8(FIVE * (1 - 0.7 * X)),
    "a lamp": np.uint8(FIVE * (1 - 0.7 * ((X - 0.2) ** 2 + (Y - 0.3) ** 2))),
    "a sharp shadow": np.uint8(FIVE * np.where(X + 0.3 * Y < 0.9, 1, 0.55)),
    "noise": with_noise(FIVE, 25),
    "specks": np.where(SPECKS, INK, FIVE).astype("uint8"),
    "a frame": drawn_on(FIVE, lambda pen: pen.rectangle([20, 20, 300, 300], outline=INK, width=12)),
    "a frame at the edge": drawn_on(FIVE, lambda pen: pen.rectangle([0, 0, 319, 319], outline=INK, width=8)),
    "a ring": drawn_on(FIVE, lambda pen: pen.ellipse([10, 10, 310, 310], outline=INK, width=10)),
    "lines on the paper": np.where((np.arange(320) % 40 < 2)[:, None], np.minimum(FIVE, 190), FIVE).astype("uint8"),
    "paper on a table": ON_TABLE,
    "shaded paper on a table": np.uint8(ON_TABLE * np.linspace(1, 0.5, 640)),
    "paper askew on a table": np.asarray(Image.fromarray(ON_TABLE).rotate(4, fillcolor=60)),
    "dark paper on a light table": 255 - ON_TABLE,
    "the table's edge": BESIDE_TABLE,
    "cut close": FIVE[ROWS[0] : ROWS[-1] + 1, COLUMNS[0] : COLUMNS[-1] + 1],
    "broken": BROKEN,
    "faint": np.uint8(PAPER - 0.08 * (PAPER - FIVE.astype("float64"))),
    "blurred": np.asarray(Image.fromarray(FIVE).filter(ImageFilter.GaussianBlur(3))),
    "a bad JPEG": as_jpeg(FIVE, 10),
}


@pytest.mark.parametrize("harm", HARMLESS)
def test_the_digit_is_found_in_spite_of(harm):
    assert difference(HARMLESS[harm]) < 0.04


def test_two_different_digits_are_further_apart_than_that():
    assert difference(written(3, seed=1)) > 0.07


@pytest.mark.parametrize("font", ["DejaVuSans-Bold", "DejaVuSerif-Bold"])
def test_bold_print_cut_close_is_not_taken_for_paper(font):
    for digit in (0, 1, 4, 8):
        page = printed(digit, font)
        rows, columns = np.flatnonzero((page < 128).any(axis=1)), np.flatnonzero((page < 128).any(axis=0))
        close = page[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert difference(close, page) < 0.03


@pytest.mark.parametrize("font", [font for font in FONTS if "Bold" in font])
@pytest.mark.parametrize("size", [30, 60])
def test_bold_print_is_not_taken_for_a_sheet_of_paper(font, size):
    for digit in (0, 8):
        assert difference(printed(digit, font, size), printed(digit, font, 120)) < 0.05


def test_the_dot_in_a_zero_belongs_to_it():
    middle = digit_from_photo(printed(0, "DejaVuSansMono"))[12:16, 12:16]
    assert middle.max() > 0.5


def test_hairlines_are_thickened():
    thin, normal = (digit_from_photo(written(5, 1, thickness=thickness)) for thickness in (0.01, 0.1))
    assert 0.7 < thin.sum() / normal.sum() < 1.3


@pytest.mark.parametrize("font", FONTS[::3])
def test_every_font_gives_ten_different_digits(font):
    digits = [digit_from_photo(printed(digit, font, size=60)) for digit in range(10)]
    apart = [np.abs(a - b).mean() for i, a in enumerate(digits) for b in digits[:i]]
    assert min(apart) > 0.02


RNG = np.random.default_rng(0)
NOTHING = {
    "blank": np.full((100, 100), 200, "uint8"),
    "a shaded page": np.uint8(200 * (1 - 0.5 * X)),
    "paper, photographed": as_jpeg(with_noise(np.full((300, 300), 220), 4), 60),
    "noise": with_noise(np.full((300, 300), 128), 40),
    "little noise": with_noise(np.full((28, 28), 128), 40),
    "even noise": RNG.integers(0, 256, (200, 200, 3), "uint8"),
    "blurred noise": np.asarray(
        Image.fromarray(RNG.integers(0, 256, (200, 200), "uint8")).filter(ImageFilter.GaussianBlur(2))
    ),
    "black and white noise": np.where(RNG.random((200, 200)) < 0.5, 0, 255).astype("uint8"),
    "stripes of three pixels": np.tile(np.uint8([255, 0, 255]), (30, 10)),
    "specks alone": np.where(RNG.random((300, 300)) < 0.01, 0, 255).astype("uint8"),
    "a square": drawn_on(FIVE, lambda pen: pen.rectangle([60, 60, 260, 260], fill=INK)),
    "a disc": drawn_on(FIVE, lambda pen: pen.ellipse([60, 60, 260, 260], fill=INK)),
    "two digits": np.hstack([FIVE, written(7, seed=2)]),
    "two digits, one over the other": np.vstack([FIVE, written(7, seed=2)]),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_no_digit_is_made_up(kind):
    with pytest.raises(ValueError, match=r"\. Received: "):
        digit_from_photo(NOTHING[kind])


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((1, 1), "uint8"), "at least 8 pixels high or wide.* Received: 1 x 1"),
        (np.zeros((7, 7), "uint8"), "at least 8 pixels"),
        (np.zeros((0, 10), "uint8"), "Received"),
        (np.zeros((1, 9000), "uint8"), "no strip"),
        (np.zeros((28, 28, 4), "uint8"), r"Received: uint8 of shape \(28, 28, 4\)"),
        (np.zeros(28, "uint8"), "Received: uint8 of shape"),
        (np.zeros((28, 28), "int64"), "Received: int64"),
        (np.full((28, 28), 255.0), "Floats must be in .*Received: from 255.0"),
        (np.full((28, 28), np.nan), "Floats must be in .*Received: from nan"),
    ],
)
def test_what_is_no_picture(image, complaint):
    with pytest.raises(ValueError, match=complaint):
        digit_from_photo(image)


def test_connected_pixels_share_a_number():
    """A spiral, a dot that touches it by a corner, and a dot alone, against a flood fill."""
    mask = np.array(
        [
            [1, 1, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 1, 0, 1],
            [1, 1, 1, 0, 1, 0, 0],
            [1, 0, 0, 0, 1, 0, 0],
            [1, 1, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 1, 0],
        ],
        bool,
    )
    numbers = connected(mask)
    assert len(np.unique(numbers)) == 3
    np.testing.assert_array_equal(numbers == numbers[0, 0], mask & (np.arange(42).reshape(6, 7) != 13))


def test_connected_agrees_with_pillows_flood_fill(rng):
    mask = rng.random((40, 50)) < 0.35
    numbers = connected(mask)
    image = Image.fromarray(np.pad(np.where(mask, 1, 0), 1).astype("int32"), "I")
    regions = 0
    for y, x in np.argwhere(mask):
        if image.getpixel((int(x) + 1, int(y) + 1)) == 1:
            regions += 1
            fill(image, int(x) + 1, int(y) + 1, regions + 1)
    reference = np.asarray(image)[1:-1, 1:-1]
    pairs = {(int(a), int(b)) for a, b in zip(numbers[mask], reference[mask], strict=True)}
    assert len(pairs) == len(np.unique(numbers[mask])) == regions


def fill(image, x, y, value):
    """A flood fill of the plainest kind, diagonals included."""
    waiting = [(x, y)]
    while waiting:
        x, y = waiting.pop()
        if image.getpixel((x, y)) == 1:
            image.putpixel((x, y), value)
            waiting += [(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
