"""From measurements to rows: who is compared with whom, and what fails."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from keras_vit_edu.parity import reference
from keras_vit_edu.parity.arrays import write
from keras_vit_edu.parity.checks import Check, Measurement
from keras_vit_edu.parity.compare import EQUAL_BITS, Tolerance
from keras_vit_edu.parity.results import Results
from keras_vit_edu.parity.rows import rows
from keras_vit_edu.parity.standard_checks import standard

pytestmark = pytest.mark.any_backend

TENTH = Tolerance("relative", 0.1)


def measured(tmp_path, excused=False, **by_backend):
    """Results of backends with these measurements; a text is the error of a check that did not run."""
    found = []
    for backend, measurements in by_backend.items():
        folder = tmp_path / backend
        folder.mkdir()
        error = measurements if isinstance(measurements, str) else None
        if error is None:
            write(folder / "c.npz", measurements, {"r"})
        outcome = {"error": error, "excused": excused, "seconds": 0.0}
        found.append(Results(backend, Path(folder), "quick", "1", checks={"c": outcome}))
    return found


def one_row(results, tolerance=TENTH, **options):
    (row,) = rows(results, [Check("c", {"r": tolerance}, lambda scene: [], **options)])
    return row


def array(*values, name="a", expected=None):
    return Measurement("r", name, np.array(values, "float32"), None if expected is None else np.array(expected))


def test_an_array_is_compared_with_what_is_expected_and_not_with_other_backends(tmp_path):
    row = one_row(measured(tmp_path, jax=[array(1.0, expected=[1.05])], torch=[array(2.0, expected=[2.0])]))
    assert row.passed
    assert row.cells["jax"].worst.against == "what is expected"
    assert row.cells["jax"].worst.difference.relative == pytest.approx(0.05 / 1.05, rel=1e-6)
    assert row.between.absolute == 1  # told, not judged


def test_with_nothing_expected_backends_are_compared_with_each_other(tmp_path):
    row = one_row(measured(tmp_path, jax=[array(1.0)], torch=[array(1.0)], tensorflow=[array(3.0)]))
    assert not row.passed
    cells = row.cells
    assert {backend: [f.against for f in cell.failures] for backend, cell in cells.items()} == {
        "jax": ["tensorflow"], "torch": ["tensorflow"], "tensorflow": ["jax", "torch"],
    }  # fmt: skip


def test_one_backend_with_nothing_to_compare_with_is_neither_right_nor_wrong(tmp_path):
    row = one_row(measured(tmp_path, jax=[array(1.0)]))
    assert (row.cells["jax"].passed, row.cells["jax"].worst, row.passed) == (None, None, None)


def test_the_largest_difference_is_the_worst(tmp_path):
    results = measured(tmp_path, jax=[
        array(1.0, name="well", expected=[1.0]), array(5.0, name="worst", expected=[1.0]),
        array(2.0, name="bad", expected=[1.0]),
    ])  # fmt: skip
    cell = one_row(results).cells["jax"]
    assert cell.worst.name == "worst"
    assert [failure.name for failure in cell.failures] == ["worst", "bad"]


def test_nan_in_one_backend_fails_there_and_wherever_it_is_compared(tmp_path):
    nan = float("nan")
    row = one_row(measured(tmp_path, jax=[array(1.0, nan)], torch=[array(1.0, nan)]))
    assert [cell.passed for cell in row.cells.values()] == [False, False]
    assert "NaN" in str(row.cells["jax"].worst.difference)


def test_other_names_and_shapes_are_failures_with_a_name(tmp_path):
    row = one_row(measured(tmp_path, jax=[array(1.0), array(1.0, name="more")], torch=[array(1.0, 2.0)]))
    problems = {(f.name, f.difference.problem) for f in row.cells["torch"].failures}
    assert problems == {("a", "shape (2,), expected (1,)"), ("more", "torch has no such array")}


def test_an_array_that_one_side_lacks_is_a_failure_whether_it_has_an_expected_one_or_not(tmp_path):
    there, more = array(1.0, expected=[1.0]), array(2.0, name="more", expected=[2.0])
    row = one_row(measured(tmp_path, jax=[there, more], torch=[there], tensorflow=[]))
    problems = {backend: {(f.name, f.against, f.difference.problem) for f in cell.failures}
                for backend, cell in row.cells.items()}  # fmt: skip
    assert problems["torch"] == {
        ("more", "jax", "torch has no such array"), ("a", "tensorflow", "tensorflow has no such array"),
    }  # fmt: skip
    assert len(problems["jax"]) == len(problems["tensorflow"]) == 3


def test_an_array_without_an_expected_one_is_compared_with_one_that_has_it(tmp_path):
    row = one_row(measured(tmp_path, jax=[array(1.0, expected=[1.0])], torch=[array(3.0)]))
    assert [cell.passed for cell in row.cells.values()] == [True, False]


def test_with_files_of_every_backend_names_are_compared_in_one_run_only(tmp_path):
    def results(one, other):
        for folder in (one, other):
            folder.mkdir(exist_ok=True, parents=True)
        return [
            *measured(one, jax=[array(1.0, name="from jax", expected=[1.0])]),
            *measured(other, torch=[array(1.0, name="from torch", expected=[1.0])]),
        ]

    assert one_row(results(tmp_path / "one", tmp_path / "other"), prepare=print).passed
    assert not one_row(results(tmp_path / "both", tmp_path / "both"), prepare=print).passed


@pytest.mark.parametrize(("excused", "passed"), [(False, False), (True, None)])
def test_a_check_that_did_not_run_is_a_failure_unless_it_cannot_run_here(tmp_path, excused, passed):
    row = one_row(measured(tmp_path, excused, jax=[array(1.0)], torch="OSError: no"))
    assert (row.cells["torch"].passed, row.cells["torch"].error) == (passed, "OSError: no")
    assert row.cells["jax"].passed is None


def test_a_gradient_that_is_zero_but_for_rounding_is_measured_by_the_largest(tmp_path):
    def passed(row, *measurements):
        folder = tmp_path / f"{row}{len(measurements)}"
        folder.mkdir()
        write(folder / "c.npz", [dataclasses.replace(each, row=row) for each in measurements], {row})
        outcome = {"error": None, "excused": False, "seconds": 0.0}
        results = Results("jax", folder, "quick", "1", checks={"c": outcome})
        (found,) = rows([results], [Check("c", {row: TENTH}, lambda scene: [])])
        return found.passed

    noise, large = array(1e-9, name="bias", expected=[0.0]), array(1.0, expected=[1.0])
    assert passed("gradients", large, noise)
    assert not passed("gradients", noise)
    assert not passed("outputs", large, noise)  # these are not parts of one thing


def test_the_committed_reference_is_compared_with_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "committed", lambda check, row: {"a": np.array([2.0]), "lost": np.array([1.0])})
    cell = one_row(measured(tmp_path, jax=[array(1.0, expected=[1.0])]), referenced=True).cells["jax"]
    assert {(f.name, f.against) for f in cell.failures} == {
        ("a", "the committed reference"), ("lost", "the committed reference"),
    }  # fmt: skip
    monkeypatch.setattr(reference, "committed", lambda check, row: {})
    (tmp_path / "new").mkdir()
    cell = one_row(measured(tmp_path / "new", jax=[array(1.0, expected=[1.0])]), referenced=True).cells["jax"]
    assert cell.worst.difference.problem == "the committed reference has no such array"


def test_bits_are_compared_by_digest(tmp_path, monkeypatch):
    values = np.array([1.0, 2.0], "float32")
    for committed, passes in ((values, True), (values.astype("float64"), False), (values[::-1], False)):
        monkeypatch.setattr(reference, "committed", lambda *key, x=committed: {"a": np.array(reference.digest(x))})
        folder = tmp_path / f"{passes}{committed.dtype}{committed[0]}"
        folder.mkdir()
        row = one_row(measured(folder, jax=[array(1.0, 2.0)]), EQUAL_BITS, referenced=True)
        assert row.passed is passes


# The reference that comes with the package. ---------------------------------------------------------------------------


def test_the_reference_has_every_check_that_wants_one_and_is_small():
    file = Path(reference.__file__).with_name(reference.FILE)
    named = {tuple(key.split("/")[:2]) for key in reference.read(file)}
    assert named == {(check.name, row) for check in standard().values() if check.referenced for row in check.tolerances}
    assert file.stat().st_size < 200_000


@pytest.mark.parametrize(
    "name", ["patches", "batches", "augmentation", "dropout", "patch-encoder", "attention", "transformer-block"]
)
def test_the_reference_equals_the_oracle(name, tmp_path):
    from keras_vit_edu.parity.checks import Scene

    check = standard()[name]
    kept = reference.reference_of(check, check.run(Scene("this one", "quick", tmp_path)))
    for row in check.tolerances:
        committed = reference.committed(name, row)
        for array_name, value in committed.items():
            now = kept[f"{name}/{row}/{array_name}"]
            if value.dtype.kind == "U":
                assert now == value
            else:
                np.testing.assert_allclose(now, value, rtol=0, atol=1e-8 * np.abs(value).max() + 1e-9)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    twice = [Measurement("row", "w", np.zeros(2)), Measurement("row", "w", np.ones(2))]
    with pytest.raises(ValueError, match="Two arrays of 'row' are called 'w'"):
        write(tmp_path / "c.npz", twice, {"row"})


def test_an_array_in_a_row_without_a_tolerance_is_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no tolerance for the row 'r' of 'a'"):
        write(tmp_path / "c.npz", [array(1.0)], {"row"})
