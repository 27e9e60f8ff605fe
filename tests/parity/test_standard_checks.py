"""What the standard checks do where something is missing."""

import pytest

from keras_vit_edu.layers import TransformerBlock
from keras_vit_edu.parity.checks import CannotRunHere, Scene, standard


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
