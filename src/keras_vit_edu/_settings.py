"""The fields of a dataclass of settings: default, range and help in one place, for its checks and for the command."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from keras_vit_edu import _backend

if not _backend.ONLY_HELP:
    from keras_vit_edu import _checks

MOST = 10**6  # epochs, and images per step
# Headings of the command's options, in the order of the help.
PANELS = ("Model and images", "Augmentation", "What trains", "Learning rate", "Optimizer", "Run")


class Rule(NamedTuple):
    """The allowed values of a field.

    Attributes:
        is_right: returns whether a value is allowed.
        wanted: the allowed values in an error, such as "a number above 0".
        range: the allowed values in the help, such as "x>0". Empty if the field is not a number.
        choices: the allowed texts, if they can be listed.
    """

    is_right: Callable[[Any], bool]
    wanted: str
    range: str = ""
    choices: tuple[str, ...] = ()


def number_rule(wanted: str, range: str, is_right: Callable[[Any], bool]) -> Rule:
    """A number in some range."""
    return Rule(lambda value: _checks.is_number(value) and is_right(value), wanted, range)


def whole_rule(wanted: str, range: str, is_right: Callable[[Any], bool]) -> Rule:
    """A whole number in some range."""
    return Rule(lambda value: type(value) is int and is_right(value), wanted, range)


def one_of_rule(choices: Iterable[str]) -> Rule:
    """One of some texts."""
    choices = tuple(choices)
    return Rule(lambda value: value in choices, f"one of {', '.join(choices)}", choices=choices)


def or_none_rule(rule: Rule) -> Rule:
    """None, or a value that another rule allows."""
    return Rule(lambda value: value is None or rule.is_right(value), f"{rule.wanted}, or none", rule.range)


COUNT = whole_rule(f"a whole number, 1 or more, at most {MOST:,}", "x>=1", lambda value: 1 <= value <= MOST)
SEED = whole_rule("a whole number in [0, 2**31)", "0<=x<2**31", lambda value: 0 <= value < 2**31)
NOT_NEGATIVE = number_rule("a number, 0 or more", "x>=0", lambda value: value >= 0)
POSITIVE = number_rule("a number above 0", "x>0", lambda value: value > 0)
FROM_0_TO_1 = number_rule("a number in [0, 1]", "0<=x<=1", lambda value: 0 <= value <= 1)
FROM_0_BELOW_1 = number_rule("a number in [0, 1)", "0<=x<1", lambda value: 0 <= value < 1)
ABOVE_0_TO_1 = number_rule("a number above 0 and at most 1", "0<x<=1", lambda value: 0 < value <= 1)
BETWEEN_0_AND_1 = number_rule("a number in (0, 1)", "0<x<1", lambda value: 0 < value < 1)


def setting(default: Any, rule: Rule | None, help: str = "", panel: str = "", shown_default: str = "") -> Any:
    """A field of a dataclass of settings.

    Args:
        default: default value.
        rule: allowed values; None if the class itself checks the field.
        help: a sentence for `--help`. A field without one is not an option of the command.
        panel: heading in `--help`, from `PANELS`; empty for the most important options.
        shown_default: default as `--help` shows it; empty to show `default`, or nothing if `default` is None.
    """
    return dataclasses.field(
        default=default, metadata={"rule": rule, "help": help, "panel": panel, "shown_default": shown_default}
    )


def check(settings: Any, of: str = "") -> None:
    """Raise a `ValueError` that names the first field that breaks its rule.

    Args:
        settings: an instance of a dataclass of settings.
        of: text before the name of the field in the error, such as "The recipe's ".
    """
    for field in dataclasses.fields(settings):
        rule, value = field.metadata["rule"], getattr(settings, field.name)
        if rule is not None and not rule.is_right(value):
            raise ValueError(f"{of}`{field.name}` must be {rule.wanted}. Received: {field.name}={value!r}")
