"""A deprecated name works, warns with two versions and a replacement, and points at the caller's line."""

import keras
import pytest

from keras_vit_edu._deprecation import deprecated, deprecated_argument

pytestmark = pytest.mark.any_backend


@deprecated(since="0.2.0", use="total")
def sum_of(a, b=1):
    """Add two numbers."""
    return a + b


@deprecated(since="1.9.3", use="keras.layers.Dense")
class OldDense(keras.layers.Dense):
    """A dense layer."""


@deprecated_argument("length", since="0.2.0", use="width")
def square(width):
    return width**2


@deprecated_argument("rounded", since="0.2.0", use="round()")
def half(number, rounded=False):
    return round(number / 2) if rounded else number / 2


class Box:
    @deprecated_argument("length", since="0.2.0", use="width")
    def __init__(self, width):
        self.width = width


def warning_of(call):
    with pytest.warns(FutureWarning) as caught:
        call()
    (warning,) = caught
    assert warning.filename == __file__
    return str(warning.message)


def test_a_function():
    with pytest.warns(FutureWarning):
        assert sum_of(2, b=3) == 5
    assert sum_of.__doc__ == "Add two numbers."
    assert warning_of(lambda: sum_of(1)) == (
        "`sum_of` is deprecated since 0.2.0 and will be removed in 0.4.0. Use `total` instead."
    )


def test_a_class_stays_the_same_class():
    with pytest.warns(FutureWarning):
        layer = OldDense(3)
    assert type(layer) is OldDense
    assert layer.units == 3
    assert layer.get_config()["units"] == 3
    assert warning_of(lambda: OldDense(3)) == (
        "`OldDense` is deprecated since 1.9.3 and will be removed in 1.11.0. Use `keras.layers.Dense` instead."
    )


def test_a_renamed_argument():
    with pytest.warns(FutureWarning):
        assert square(length=3) == 9
    assert warning_of(lambda: square(length=3)) == (
        "`square(length=...)` is deprecated since 0.2.0 and will be removed in 0.4.0. Use `width` instead."
    )


def test_a_renamed_argument_of_a_constructor():
    with pytest.warns(FutureWarning):
        assert Box(length=3).width == 3
    assert warning_of(lambda: Box(length=3)).startswith("`Box(length=...)` is deprecated")


def test_an_argument_that_goes_away_works_until_then():
    with pytest.warns(FutureWarning):
        assert half(3.0, rounded=True) == 2


@pytest.mark.filterwarnings("error")
def test_the_new_name_does_not_warn():
    assert square(3) == square(width=3) == 9
    assert Box(3).width == 3
    assert half(3.0) == 1.5


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_both_names_are_an_error():
    with pytest.raises(TypeError, match="`length` is the old name of `width`"):
        square(width=3, length=3)
    with pytest.raises(TypeError, match="width"):
        square(3, length=3)
