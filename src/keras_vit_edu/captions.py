"""Captions above pictures: lines of text that are shortened in the middle if they do not fit."""

from collections.abc import Callable

from keras_vit_edu._files import printable

ELLIPSIS = "…"
Fits = Callable[[str], bool]


def shortened(text: str, fits: Fits) -> str:
    """Escape control characters of `text`, and shorten it in the middle until it fits.

    The beginning of a path names the class, and its end names the photograph. So both are kept.

    Args:
        text: a single line.
        fits: returns whether a text fits. It is not called for a single character.

    Examples:
        >>> shortened("dogs/holiday/2024-07-31_beach_0001.jpg", lambda text: len(text) <= 21)
        'dogs/holid…h_0001.jpg'
        >>> shortened("dogs/rex.jpg", lambda text: len(text) <= 21)
        'dogs/rex.jpg'
    """
    text = printable(text)
    if fits(text):
        return text
    fewest, most = 0, len(text) - 1  # characters kept; `fewest` fit, as far as anything does
    while most - fewest > 1:
        kept = (fewest + most) // 2
        fewest, most = (kept, most) if fits(_without_middle(text, kept)) else (fewest, kept)
    return _without_middle(text, fewest)


def _without_middle(text: str, kept: int) -> str:
    return text[: kept - kept // 2] + ELLIPSIS + text[len(text) - kept // 2 :]


def between(before: str, name: str, after: str, fits: Fits) -> str:
    """A line in which only `name` may be shortened.

    Examples:
        >>> between("taken for ", "black-and-tan coonhound", " (98.3%)", lambda text: len(text) <= 30)
        'taken for black-…hound (98.3%)'
    """
    return before + shortened(name, lambda text: fits(before + text + after)) + after


def mistake(true: str, predicted: str, probability: float, name: str, fits: Fits) -> str:
    """The three lines above a wrongly classified image: its class, the predicted class, the name of the image.

    Examples:
        >>> print(mistake("cat", "dog", 0.983, "cat/felix.jpg", lambda text: len(text) <= 30))
        true: cat
        taken for: dog (98.3%)
        cat/felix.jpg
    """
    lines = (
        between("true: ", true, "", fits),
        between("taken for: ", predicted, f" ({probability:.1%})", fits),
        shortened(name, fits),
    )
    return "\n".join(lines)
