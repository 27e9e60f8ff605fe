import numpy as np
import pytest
from PIL import Image

from keras_vit_edu.datasets import check_digit, load, measure_digit
from tests.digits.test_digit_photo import HARMLESS
from tests.drawings import FONTS, printed, written

pytestmark = pytest.mark.any_backend  # NumPy alone


def test_the_measures_of_a_bar_by_hand():
    page = np.full((300, 300), 255, "uint8")
    page[50:250, 130:170] = 0
    found = measure_digit(page)
    assert found.outline == 2 * (200 + 40) / 200
    assert found.marks == 1
    assert found.uneven_paper == pytest.approx(0, abs=1e-6)


def test_paper_is_as_uneven_as_its_waves_are_high():
    """Waves of amplitude 20 have a root mean square of 20 / sqrt(2); ink of 0 on a mean of 200 has contrast 200."""
    page = np.tile(200 + 20 * np.sin(np.arange(400) / 6), (400, 1))
    page[100:300, 180:220] = 0
    assert measure_digit(np.uint8(np.round(page))).uneven_paper == pytest.approx(20 / 2**0.5 / 200, rel=0.05)


@pytest.mark.parametrize("harm", HARMLESS)
def test_what_is_harmless_is_no_reason_to_doubt(harm):
    check_digit(HARMLESS[harm])


def test_print_and_handwriting_look_like_digits():
    for number in range(40):
        check_digit(printed(number % 10, FONTS[number % len(FONTS)], 60))
        check_digit(written(number % 10, number, 60, thickness=(0.03, 0.08, 0.16)[number % 3]))


def test_mnist_looks_like_digits():
    refused = 0
    for image in load("mnist-sample").x_test[:200]:
        large = np.asarray(Image.fromarray(image[..., 0]).resize((112, 112), Image.Resampling.BICUBIC))
        refused += bool(measure_digit(large).doubts())
    assert refused <= 2


@pytest.mark.hub
def test_photographs_do_not():
    """At least 9 of 10 of those that scikit-image brings; `tools/digit_or_photograph.py` counts them all."""
    data = pytest.importorskip("skimage.data")
    names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
    taken = []
    for name in names:
        try:
            check_digit(getattr(data, name)())
            taken.append(name)
        except ValueError:
            pass
    assert len(taken) <= 1, taken
