"""Settings: one place for the default, the range and the help of a field."""

import dataclasses
import math
import re
from dataclasses import dataclass

import pytest

from keras_vit_edu import _settings
from keras_vit_edu._settings import PANELS, check, one_of_rule, or_none_rule, setting
from keras_vit_edu.training import Recipe
from keras_vit_edu.transfer import FineTuning

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]


@dataclass(frozen=True)
class Tea:
    """What a cup is made with."""

    kind: str = setting("green", one_of_rule(("green", "black")), "Kind of leaves.")
    minutes: float = setting(3.0, _settings.POSITIVE, "How long it draws.", "Run")
    sugar: int | None = setting(None, or_none_rule(_settings.COUNT))

    def __post_init__(self):
        check(self, "The tea's ")


@pytest.mark.parametrize("tea", [{}, {"kind": "black"}, {"minutes": 1}, {"sugar": 2}])
def test_what_the_rules_allow(tea):
    assert dataclasses.asdict(Tea(**tea)) == {"kind": "green", "minutes": 3.0, "sugar": None, **tea}


@pytest.mark.parametrize(
    ("tea", "wanted"),
    [
        ({"kind": "blue"}, "one of green, black. Received: kind='blue'"),
        ({"minutes": 0}, "a number above 0. Received: minutes=0"),
        ({"minutes": math.inf}, "a number above 0. Received: minutes=inf"),
        ({"minutes": True}, "a number above 0. Received: minutes=True"),
        ({"sugar": 1.0}, "a whole number, 1 or more, at most 1,000,000, or none. Received: sugar=1.0"),
        ({"sugar": True}, "a whole number, 1 or more, at most 1,000,000, or none. Received: sugar=True"),
    ],
)
def test_what_they_do_not_allow_is_named(tea, wanted):
    with pytest.raises(ValueError, match=re.escape(f"The tea's `{next(iter(tea))}` must be {wanted}") + "$"):
        Tea(**tea)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ("FROM_0_TO_1", (0, 1), (-0.1, 1.1)),
        ("FROM_0_BELOW_1", (0, 0.9), (-0.1, 1)),
        ("ABOVE_0_TO_1", (0.1, 1), (0, 1.1)),
        ("BETWEEN_0_AND_1", (0.1, 0.9), (0, 1)),
        ("NOT_NEGATIVE", (0, 9), (-1, math.nan)),
        ("SEED", (0, 2**31 - 1), (-1, 2**31)),
        ("COUNT", (1, 10**6), (0, 10**6 + 1)),
    ],
)
def test_each_range_as_errors_and_the_help_say_it(rule, right, wrong):
    rule = getattr(_settings, rule)
    assert all(map(rule.is_right, right))
    assert not any(map(rule.is_right, wrong))
    assert rule.wanted.startswith(("a number", "a whole number"))
    # The help says the range as Python would; the largest count is the one thing that only an error says.
    assert [eval(rule.range, {"x": value}) for value in right] == [True, True]
    assert rule == _settings.COUNT or not any(eval(rule.range, {"x": value}) for value in wrong)


@pytest.mark.parametrize("settings", [Recipe, FineTuning])
def test_every_field_is_a_setting(settings):
    for field in dataclasses.fields(settings):
        assert field.metadata["panel"] in ("", *PANELS)
        assert field.metadata["rule"] is not None or field.name == "augmentation"
