"""Plant a fault in one backend's process and see the command name the check that should catch it, and that backend.

Alone, the faulty one is found out by the oracle and the committed reference. Beside it, a healthy one must pass.
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

# Beside the process of another backend: one fault for each.
BESIDE_ANOTHER = [fault for fault in FAULTS if fault[0] in ("tanh_gelu", "nan", "shuffled_batch")]


@pytest.mark.any_backend
@pytest.mark.skipif(BACKEND != "torch", reason="a fault alone is planted in torch, the quickest to start")
@pytest.mark.parametrize(("fault", "place", "check", "row"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_named(fault, place, check, row, tmp_path, monkeypatch, capsys):
    plant_and_find(fault, "torch", [], check, row, tmp_path, monkeypatch, capsys)


@pytest.mark.together
@pytest.mark.parametrize(
    ("fault", "faulty", "check", "row"), BESIDE_ANOTHER, ids=[fault[0] for fault in BESIDE_ANOTHER]
)
def test_beside_another_backend_a_planted_fault_is_named(fault, faulty, check, row, tmp_path, monkeypatch, capsys):
    healthy = [backend for backend in INSTALLED if backend != faulty][:1]
    plant_and_find(fault, faulty, healthy, check, row, tmp_path, monkeypatch, capsys)


def plant_and_find(fault, faulty, healthy, check, row, tmp_path, monkeypatch, capsys):
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
