"""The result of a comparison, as a table, as JSON and as an HTML page."""

import html
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from keras_vit_edu._files import printable
from keras_vit_edu.parity.compare import EQUAL_BITS, Difference
from keras_vit_edu.parity.results import FORMAT_VERSION, Results
from keras_vit_edu.parity.rows import Cell, Comparison, Row

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = "absolute / relative / ULP"
VERDICTS = {True: "pass", False: "FAIL", None: "nothing to compare"}
STYLES = {True: "green", False: "bold red", None: "yellow"}
CLASSES = {True: "pass", False: "fail", None: "none"}  # of report.html


class Report:
    """Rows of differences between backends, and whether they are within their tolerances.

    Attributes:
        suite: `"quick"`, `"full"`, or `"own"` for a user's own code.
        results: of every backend.
        rows: every comparison, row by row.
    """

    def __init__(self, suite: str, results: Sequence[Results], rows: Sequence[Row]) -> None:
        self.suite = suite
        self.results = list(results)
        self.rows = list(rows)

    @property
    def passed(self) -> bool:
        """Whether every backend finished, something was compared and no row failed."""
        verdicts = {row.passed for row in self.rows}
        return not self.broken and True in verdicts and False not in verdicts

    @property
    def broken(self) -> dict[str, str]:
        """The backends that did not finish, and why."""
        return {each.label: each.broken for each in self.results if each.broken is not None}

    @property
    def backends(self) -> list[str]:
        """The labels of the backends that ran any checks."""
        return [each.label for each in self.results if each.checks]

    def failures(self) -> list[str]:
        """A line for each failure: the check, the backend and the difference."""
        lines = [f"{backend}: {reason}" for backend, reason in self.broken.items()]
        errors = set()
        for row in self.rows:
            for backend, cell in row.cells.items():
                if cell.passed is not False:
                    continue
                if cell.error is None:
                    lines.append(f"{row.check}: {row.row} on {backend}: {_in_words(cell, row)}")
                elif (row.check, backend) not in errors:  # one check, several rows
                    errors.add((row.check, backend))
                    lines.append(f"{row.check} on {backend} did not run: {cell.error}")
        return lines if lines or self.passed else ["nothing was compared"]

    def raise_for_differences(self) -> None:
        """Do nothing if everything passed.

        Raises:
            AssertionError: with a line about each failure, if something did not.
        """
        if not self.passed:
            raise AssertionError("\n".join(["parity has not passed:", *self.failures()]))

    # Three ways to show it. -------------------------------------------------------------------------------------------

    def table(self) -> "Table":
        """A `rich` table: a row a check, a column a backend."""
        from rich.table import Table
        from rich.text import Text

        table = Table()
        names = (row.check for row in self.rows)  # as `--checks` takes them: never broken
        table.add_column("check", overflow="fold", min_width=max(map(len, names), default=0) + 1)
        for header in (*(f"{name}\n{COLUMNS}" for name in self.backends), "tolerance", ""):
            table.add_column(header, overflow="fold")
        for row in self.rows:
            cells = [row.cells.get(name, Cell()) for name in self.backends]
            shown = [Text(_numbers(cell, row), "bold red" if cell.passed is False else "") for cell in cells]
            verdict = Text(VERDICTS[row.passed], STYLES[row.passed])
            table.add_row(f"{row.check}: {row.row}", *shown, str(row.tolerance), verdict)
        return table

    def to_json(self) -> dict[str, Any]:
        """The content of `parity.json`. Numbers that are not finite are the texts "nan" and "inf"."""
        return {
            "format_version": FORMAT_VERSION,
            "keras_vit_edu": self.results[0].version if self.results else None,
            "suite": self.suite,
            "passed": self.passed,
            "failures": self.failures(),
            "backends": {
                each.label: {"broken": each.broken, "tf32": each.tf32, **each.environment, "checks": each.checks}
                for each in self.results
            },
            "rows": [_row_to_json(row) for row in self.rows],
        }

    def to_html(self) -> str:
        """A self-contained HTML page."""
        page = resources.files(__package__) / "report.html"
        header = "".join(f"<th>{_escaped(name)}<small>{COLUMNS}</small></th>" for name in self.backends)
        failures = "".join(f"<li>{_escaped(line)}</li>" for line in self.failures())
        return Template(page.read_text(encoding="utf-8")).substitute(
            verdict="passed" if self.passed else "failed",
            headline=_escaped(self.headline()),
            environments="".join(_environment_to_html(each) for each in self.results),
            header=header,
            rows="".join(_row_to_html(row, self.backends) for row in self.rows),
            failures=f"<h2>What failed</h2><ul>{failures}</ul>" if failures else "",
        )

    def headline(self) -> str:
        """One line with the numbers of passed and failed rows."""
        verdicts = [row.passed for row in self.rows]
        texts = {True: "passed", False: "failed", None: "had nothing to compare"}
        counts = [f"{verdicts.count(key)} {text}" for key, text in texts.items() if key in verdicts]
        broken = f", without {', '.join(self.broken)}" if self.broken else ""
        on = ", ".join(self.backends) or "no backend"
        return f"rows: {', '.join(counts) or 'none'}; suite {self.suite}, on {on}{broken}"

    def save(self, folder: Path) -> None:
        """Write `parity.json` and `parity.html`.

        Args:
            folder: where; created if it does not exist.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "parity.json").write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        (folder / "parity.html").write_text(self.to_html(), encoding="utf-8")


def _escaped(text: str) -> str:
    """Escape a text for the page. It may come from untrusted results."""
    return html.escape(printable(text))


def _numbers(cell: Cell, row: Row) -> str:
    """The text of a cell."""
    if cell.error is not None:
        return "error" if cell.passed is False else "does not run here"
    if cell.worst is None:
        return "-"
    found = cell.worst.difference
    if found.problem is not None:
        return found.problem
    if row.tolerance == EQUAL_BITS and found.equal_bits:
        return "equal"
    return f"{found.absolute:.1e} / {found.relative:.1e} / {_ulps(found.ulps)}"


def _ulps(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count:,}" if count < 1_000_000 else f"{count:.0e}"


def _in_words(cell: Cell, row: Row) -> str:
    worst = cell.worst
    assert worst is not None  # a cell that failed has one
    others = f" ({len(cell.failures)} arrays failed)" if len(cell.failures) > 1 else ""
    return f"{worst.name} against {worst.against}: {worst.difference}; allowed: {row.tolerance}{others}"


def _number(value: float | None) -> float | str | None:
    """As JSON can hold it."""
    return value if value is None or math.isfinite(value) else str(value)


def _difference_to_json(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    numbers = {name: _number(getattr(found, name)) for name in ("absolute", "relative", "ulps")}
    return {**numbers, "equal_bits": found.equal_bits, "problem": found.problem}


def _comparison_to_json(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "array": comparison.name,
        "against": comparison.against,
        **(_difference_to_json(comparison.difference) or {}),
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    return {
        "check": row.check,
        "row": row.row,
        "what": row.what,
        "tolerance": {"measure": row.tolerance.measure, "limit": row.tolerance.limit},
        "passed": row.passed,
        "between_backends": _difference_to_json(row.between),
        "cells": {
            backend: {
                "passed": cell.passed,
                "error": cell.error,
                "worst": _comparison_to_json(cell.worst),
                "failures": [_comparison_to_json(failure) for failure in cell.failures],
            }
            for backend, cell in row.cells.items()
        },
    }


def _row_to_html(row: Row, backends: Sequence[str]) -> str:
    cells = ""
    for backend in backends:
        cell = row.cells.get(backend, Cell())
        against = (
            f"{cell.worst.name} against {cell.worst.against}" if cell.worst else cell.error or "nothing to compare"
        )
        failed = ' class="failed"' if cell.passed is False else ""
        cells += f'<td{failed} title="{_escaped(against)}">{_escaped(_numbers(cell, row))}</td>'
    name, what = _escaped(f"{row.check}: {row.row}"), _escaped(row.what)
    return (
        f'<tr><th scope="row">{name}<small>{what}</small></th>{cells}'
        f"<td>{_escaped(str(row.tolerance))}</td>"
        f'<td class="{CLASSES[row.passed]}">{VERDICTS[row.passed]}</td></tr>\n'
    )


def _environment_to_html(results: Results) -> str:
    versions = results.environment.get("versions", {})
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    device = results.environment.get("device", "")
    text = results.broken or f"{device}; {shown}; TF32 {'on' if results.tf32 else 'off'}"
    return f"<dt>{_escaped(results.label)}</dt><dd>{_escaped(text)}</dd>\n"
