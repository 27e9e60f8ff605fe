"""`tools/make_parity_reference.py`: all of the reference or nothing."""

import runpy
from pathlib import Path

import pytest

import keras_vit_edu
from keras_vit_edu.parity import reference
from keras_vit_edu.parity.results import Results
from keras_vit_edu.parity.standard_checks import standard

pytestmark = pytest.mark.any_backend

TOOL = Path(__file__).parents[2] / "tools" / "make_parity_reference.py"


def test_checks_that_failed_or_did_not_run_are_named_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    well = {"error": None, "excused": False, "seconds": 0.0}
    for backend in ("tensorflow", "torch", "jax"):
        (tmp_path / backend).mkdir()
        checks = {check.name: well for check in standard().values()}
        if backend == "torch":
            checks["patches"] = {**well, "error": "OSError: no"}
            del checks["dropout"]
        Results(backend, tmp_path / backend, "quick", keras_vit_edu.__version__, checks=checks).save()
    file = Path(reference.__file__).with_name(reference.FILE)
    before = file.read_bytes()
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL))["main"]([str(tmp_path)])
    assert "did not come to their end: dropout on torch, patches on torch" in capsys.readouterr().err
    assert file.read_bytes() == before
