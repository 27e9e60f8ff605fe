"""The three ways to show what was found."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.parity.compare import Difference, Tolerance
from keras_vit_edu.parity.report import Report
from keras_vit_edu.parity.results import Results
from keras_vit_edu.parity.rows import Cell, Comparison, Row

pytestmark = pytest.mark.any_backend

LIMIT = Tolerance("relative", 1e-5)


def compared(*arguments, against="jax", **keywords):
    return Comparison("an <array>", against, Difference(*arguments, **keywords))


def report(cell, broken=None):
    """Of one row, right on jax, `cell` on torch."""
    well = Cell(compared(2e-7, 1e-7, 3), True)
    row = Row("attention", "outputs", "It & its scores.", LIMIT, {"jax": well, "torch": cell})
    ran = {"attention": {"error": None, "excused": False, "seconds": 1.0}}
    versions = {"device": "cpu", "versions": {"jax": "1.2.3"}}
    results = [
        Results("jax", Path(), "quick", "0.1", environment=versions, checks=ran),
        Results("torch", Path(), "quick", "0.1", checks=ran),
    ]
    if broken:
        results.append(Results("tensorflow", Path(), "quick", "0.1", broken=broken))
    return Report("quick", results, [row])


WRONG = compared(0.5, 0.25, 2**30)
PASSING, FAILING = report(Cell(compared(0.0, 0.0, 0), True)), report(Cell(WRONG, False, None, (WRONG, WRONG)))
NOT_FINITE = compared(problem="NaN: 1 of the actual values, of 4")
NAN = report(Cell(NOT_FINITE, False, None, (NOT_FINITE,)))
INFINITE = report(Cell(compared(np.inf, np.inf), False, None, (compared(np.inf, np.inf),)))
ERROR = report(Cell(passed=False, error="OSError: no"))


def shown(report):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


def test_passing():
    assert PASSING.passed
    assert PASSING.failures() == []
    PASSING.raise_for_differences()
    assert "2.0e-07 / 1.0e-07 / 3" in shown(PASSING)
    assert "1e-05 of the largest" in shown(PASSING)
    assert "pass" in shown(PASSING)
    assert PASSING.headline() == "rows: 1 passed; suite quick, on jax, torch"


def test_with_nothing_to_compare_it_has_not_passed():
    (row,) = PASSING.rows
    alone = Report("quick", PASSING.results[:1], [dataclasses.replace(row, cells={"jax": Cell()})])
    assert not alone.passed
    assert alone.failures() == ["nothing was compared"]
    with pytest.raises(AssertionError, match="nothing was compared"):
        alone.raise_for_differences()
    assert "nothing to compare" in shown(alone)
    assert "nothing to compare</td>" in alone.to_html()
    assert alone.headline() == "rows: 1 had nothing to compare; suite quick, on jax"
    mixed = Report("quick", PASSING.results, [row, *alone.rows])
    assert mixed.passed
    assert mixed.headline() == "rows: 1 passed, 1 had nothing to compare; suite quick, on jax, torch"


def test_failing_names_check_row_backend_array_difference_and_tolerance():
    line = (
        "attention: outputs on torch: an <array> against jax: 5.0e-01, 2.5e-01 of the largest, 1,073,741,824 ULP; "
        "allowed: 1e-05 of the largest (2 arrays failed)"
    )
    assert not FAILING.passed
    assert FAILING.failures() == [line]
    with pytest.raises(AssertionError, match=re.escape(line)):
        FAILING.raise_for_differences()
    assert "FAIL" in shown(FAILING)
    assert FAILING.headline() == "rows: 1 failed; suite quick, on jax, torch"


def test_nan_and_errors_are_named():
    assert "NaN: 1 of the actual values, of 4" in shown(NAN)
    assert ERROR.failures() == ["attention on torch did not run: OSError: no"]
    assert not ERROR.passed


def test_a_broken_backend_fails_the_report():
    found = report(Cell(compared(0.0, 0.0, 0), True), broken="it is not installed")
    assert not found.passed
    assert found.failures() == ["tensorflow: it is not installed"]
    assert found.headline().endswith("on jax, torch, without tensorflow")
    assert "it is not installed" in found.to_html()


def test_the_name_of_a_backend_is_text_on_the_page():
    results = [dataclasses.replace(each, label="<b>", broken="no") for each in PASSING.results]
    assert "<b>" not in Report("quick", results, PASSING.rows).to_html()


@pytest.mark.parametrize("report", [PASSING, FAILING, NAN, INFINITE, ERROR])
def test_the_json_is_json(report):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(json.dumps(report.to_json()), parse_constant=refuse)
    assert found["passed"] is report.passed
    (row,) = found["rows"]
    assert row["tolerance"] == {"measure": "relative", "limit": 1e-5}
    assert row["cells"]["jax"]["worst"]["relative"] == 1e-7
    assert row["cells"]["torch"]["passed"] is report.passed
    assert found["backends"]["jax"]["device"] == "cpu"


def test_the_page_is_whole_and_has_nothing_to_load():
    page = FAILING.to_html()
    assert "an &lt;array&gt;" in page
    assert "It &amp; its scores." in page
    assert "jax 1.2.3" in page
    assert "<array>" not in page
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", page)
    assert "$" not in page


def test_it_is_saved(tmp_path):
    PASSING.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "parity.json").read_text())["passed"]
    assert (tmp_path / "new" / "parity.html").read_text().startswith("<!doctype html>")
