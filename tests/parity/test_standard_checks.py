"""What the standard checks do where something is missing, and with presets of which none need be bundled."""

import shutil

import numpy as np
import pytest

from keras_vit_edu.layers import TransformerBlock
from keras_vit_edu.models import preset
from keras_vit_edu.models.reference_logits import reference_logits
from keras_vit_edu.parity.arrays import write
from keras_vit_edu.parity.checks import CannotRunHere, Scene
from keras_vit_edu.parity.results import Results
from keras_vit_edu.parity.rows import rows
from keras_vit_edu.parity.standard_checks import standard
from tests.support import random_weights, vit_classifier

pytestmark = pytest.mark.any_backend


def run(name, tmp_path):
    return list(standard()[name].run(Scene("this one", "quick", tmp_path)))


def unavailable(*arguments, **keywords):
    raise NotImplementedError("not on this device")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_excused_by_a_product_of_matrices_that_fails_and_by_nothing_else(
    dtype, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(TransformerBlock, "call", unavailable)
        with pytest.raises(NotImplementedError):
            run(dtype, tmp_path)
    monkeypatch.setattr("keras.ops.matmul", unavailable)
    with pytest.raises(CannotRunHere, match=f"no product of matrices in {dtype}: not on this device"):
        run(dtype, tmp_path)


# Presets with weights. ------------------------------------------------------------------------------------------------


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A folder in the place of the bundled presets, with one that has weights and one that has none."""
    folder = tmp_path / "presets"
    model = vit_classifier(projection_dim=8, num_layers=1, key_dim=4, head="mean", head_units=(), name="small")
    random_weights(model)
    model.save_to_preset(folder / "small", {"reference_logits": reference_logits(model).tolist()})
    shutil.copytree(folder / "small", folder / "configuration")
    (folder / "configuration" / "weights.safetensors").unlink()
    (folder / "configuration" / "metadata.json").write_text('{"format_version": 2, "weights_sha256": null}')
    monkeypatch.setattr(preset, "_bundled", lambda: folder)
    return folder


def test_trained_presets_are_compared_with_the_stored_logits_and_with_other_backends(bundled, tmp_path):
    measured = run("trained-presets", tmp_path)
    assert [(m.row, m.name, m.expected is None) for m in measured] == [
        ("logits", "small", False), ("between backends", "small", True),
    ]  # fmt: skip

    def outcomes(**changes):
        """Whether both rows pass on two backends, of which one gives other logits by that much."""
        check, results = standard()["trained-presets"], []
        for backend in ("jax", "torch"):
            (tmp_path / backend).mkdir(exist_ok=True)
            off = changes.get(backend, 0.0)
            shifted = [type(m)(m.row, m.name, m.actual + off * np.abs(m.actual).max(), m.expected) for m in measured]
            write(tmp_path / backend / "trained-presets.npz", shifted, check.tolerances)
            well = {"trained-presets": {"error": None, "excused": False, "seconds": 0.0}}
            results.append(Results(backend, tmp_path / backend, "quick", "1", checks=well))
        return [row.passed for row in rows(results, [check])]

    assert outcomes() == [True, True]
    assert outcomes(torch=5e-6) == [True, True]
    assert outcomes(torch=2e-5) == [False, False]
    assert outcomes(jax=-8e-6, torch=8e-6) == [True, False]  # each near the stored ones, but not near each other


def test_without_trained_presets_there_is_nothing_to_compare(bundled, tmp_path):
    (bundled / "small").rename(tmp_path / "elsewhere")
    assert run("trained-presets", tmp_path) == []
