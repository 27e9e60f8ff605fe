"""Results of `classify`, as lines, JSON and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_vit_edu._files import printable, write_atomically

UNKNOWN = "unknown"
# A spreadsheet reads a cell that begins like this as a formula (OWASP, "CSV injection"). The last four are full-width.
BEGIN_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class Classified:
    """The result for one file.

    Attributes:
        file: its path.
        best: classes and their probabilities, the most probable first; empty after an error.
        error: why the file was not classified; empty without an error.
    """

    file: Path
    best: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def is_known(self, threshold: float) -> bool:
        """Whether the most probable class reaches the threshold."""
        return bool(self.best) and self.best[0][1] >= threshold

    def named(self, threshold: float) -> str:
        """The most probable class, or `"unknown"` if its probability is below the threshold; empty after an error."""
        if not self.best:
            return ""
        return self.best[0][0] if self.is_known(threshold) else UNKNOWN


def as_line(found: Classified, threshold: float) -> str:
    """A result as a line of text.

    Examples:
        >>> print(as_line(Classified(Path("a.png"), (("7", 0.9), ("1", 0.1))), threshold=0.5))
        a.png: 7 (90.0%), 1 (10.0%)
        >>> print(as_line(Classified(Path("a.png"), (("7", 0.4), ("1", 0.3))), threshold=0.5))
        a.png: unknown, at best 7 (40.0%), 1 (30.0%)
    """
    best = ", ".join(f"{name} ({probability:.1%})" for name, probability in found.best)
    return printable(f"{found.file}: {best if found.is_known(threshold) else f'{UNKNOWN}, at best {best}'}")


def as_json(found: Classified, threshold: float) -> dict[str, Any]:
    """A result as JSON.

    Examples:
        >>> as_json(Classified(Path("a.png"), (("7", 0.4),)), threshold=0.5)
        {'file': 'a.png', 'class': 'unknown', 'classes': [{'class': '7', 'probability': 0.4}]}
        >>> as_json(Classified(Path("a.png"), error="There is no such file."), threshold=0.5)
        {'file': 'a.png', 'error': 'There is no such file.'}
    """
    if found.error:
        return {"file": str(found.file), "error": found.error}
    classes = [{"class": name, "probability": probability} for name, probability in found.best]
    return {"file": str(found.file), "class": found.named(threshold), "classes": classes}


def write_csv(several: Sequence[Classified], threshold: float, file: Path) -> None:
    """Write a CSV file with a row for each result, in UTF-8.

    Columns: `file`; `class`, which may be `unknown`; `probability` of the most probable class; then `class_1`,
    `probability_1`, `class_2`, ... by rank; `error`. Missing values are empty.

    No cell is a formula for a spreadsheet: a path that begins like a formula gets `./` in front, other text an
    apostrophe. Control characters are escaped.

    Args:
        several: the results.
        threshold: lowest probability; below it the class is `unknown`.
        file: the CSV file to write; its folder is created.
    """
    ranks = range(1, 1 + max((len(found.best) for found in several), default=0))
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")  # quoted for readers that split at ";"
    numbered = [column for rank in ranks for column in (f"class_{rank}", f"probability_{rank}")]
    writer.writerow(["file", "class", "probability", *numbered, "error"])
    for found in several:
        cells: list[str | float] = []
        for name, probability in found.best:
            cells += [safe_text(name), probability]
        cells += [""] * (2 * len(ranks) - len(cells))
        best = found.best[0][1] if found.best else ""
        writer.writerow(
            [safe_path(found.file), safe_text(found.named(threshold)), best, *cells, safe_text(found.error)]
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.getvalue().encode("utf-8", "backslashreplace"))


def safe_text(text: str) -> str:
    """Text for a cell, never a formula.

    Examples:
        >>> safe_text("=1+1")
        "'=1+1"
        >>> safe_text("cat")
        'cat'
    """
    return printable(f"'{text}" if text.startswith(BEGIN_A_FORMULA) else text)


def safe_path(file: Path) -> str:
    """A path for a cell: never a formula, and still the path of the same file.

    Examples:
        >>> safe_path(Path("=1+1.png"))
        './=1+1.png'
        >>> safe_path(Path("photos/cat.png")).replace("\\\\", "/")
        'photos/cat.png'
    """
    text = str(file)
    return printable(f"./{text}" if text.startswith(BEGIN_A_FORMULA) else text)
