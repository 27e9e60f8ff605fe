"""Plant a fault in one backend's process and see the command name the check that should catch it, and that backend.

With several backends installed, the faulty one runs beside a healthy one, which must pass; a single one is found out by
the oracle and the committed reference.
"""

import json
from pathlib import Path

import pytest

from keras_vit_edu import cli
from keras_vit_edu._backend import installed_backends
from tests.support import BACKEND

PLANTED = Path(__file__).with_name("planted")
INSTALLED = installed_backends()

# Fault, the backend to plant it in where all three are installed, the check and its row that must find it.
FAULTS = [
    ("tanh_gelu", "torch", "transformer-block", "outputs"),
    ("epsilon", "tensorflow", "transformer-block", "outputs"),
    ("transposed_heads", "torch", "attention", "outputs"),
    ("dropout_without_counter", "tensorflow", "dropout", "masks"),
    ("patches_in_column_order", "jax", "patches", "patches"),
    ("shuffled_batch", "jax", "batches", "labels"),
    ("weights_in_another_order", "torch", "save-load", "weights"),
    ("nan", "tensorflow", "attention", "outputs"),
]

if len(INSTALLED) > 1:  # one a backend, beside another backend's process; on torch alone there are all of them
    FAULTS = [fault for fault in FAULTS if fault[0] in ("tanh_gelu", "nan", "shuffled_batch")]

pytestmark = pytest.mark.skipif(
    len(INSTALLED) == 1 and BACKEND != "torch", reason="a fault alone is planted in torch, the quickest to start"
)


@pytest.mark.parametrize(("fault", "place", "check", "row"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_named(fault, place, check, row, tmp_path, monkeypatch, capsys):
    faulty = place if place in INSTALLED else BACKEND
    healthy = [backend for backend in INSTALLED if backend != faulty][:1]
    monkeypatch.syspath_prepend(PLANTED)
    monkeypatch.setenv("PLANTED_FAULT", f"{faulty}:{fault}")
    backends = ",".join([faulty, *healthy])
    assert cli.run(["parity", "--backends", backends, "--checks", check, "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().out
    named = [line for line in shown.splitlines() if line.startswith(f"{check}: {row} on {faulty}: ")]
    assert len(named) == 1, shown
    assert ("NaN" in named[0]) == (fault == "nan")
    found = json.loads((tmp_path / "out" / "parity.json").read_text())
    cells = next(entry["cells"] for entry in found["rows"] if entry["row"] == row)
    assert cells[faulty]["passed"] is False
    for backend in healthy:
        # A file that the faulty one wrote is well; everything else is measured by the oracle or NumPy.
        assert cells[backend]["passed"] is True
