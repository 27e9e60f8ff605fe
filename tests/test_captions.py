import pytest

from keras_vit_edu.captions import ELLIPSIS, between, mistake, shortened

pytestmark = pytest.mark.any_backend


def at_most(length):
    return lambda text: len(text) <= length


@pytest.mark.parametrize("length", range(1, 45))
def test_a_long_name_keeps_its_beginning_and_its_end(length):
    name = "dogs/holiday/2024-07-31_beach_0001.jpg"
    short = shortened(name, at_most(length))
    if length >= len(name):
        assert short == name
        return
    assert len(short) == length  # as long as there is room for
    begin, end = short.split(ELLIPSIS)
    assert name.startswith(begin)
    assert name.endswith(end)
    assert len(begin) - len(end) in (0, 1)


def test_where_nothing_fits_a_sign_of_it_is_left():
    assert shortened("photo.jpg", at_most(0)) == ELLIPSIS


def test_only_the_name_in_a_line_is_shortened():
    assert between("taken for: ", "golden retriever", " (98.3%)", at_most(26)) == "taken for: gol…ver (98.3%)"


def test_a_line_stays_one_line():
    text = mistake("a\nb", "c\x1b[2J", 0.5, "d\u202e/e.jpg", at_most(99))
    assert text.split("\n") == ["true: a\\nb", "taken for: c\\x1b[2J (50.0%)", "d\\u202e/e.jpg"]
