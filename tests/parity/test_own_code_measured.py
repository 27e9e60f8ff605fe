"""What `parity.check` measures of anyone's layer or model, in this process, on this backend."""

import numpy as np
import pytest

from keras_vit_edu.parity import own_code
from keras_vit_edu.parity.arrays import read, save_arrays, write
from keras_vit_edu.parity.checks import Scene
from keras_vit_edu.parity.compare import difference
from tests.parity import functions
from tests.support import BACKEND

X = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")


def measured(kind, build_fn, inputs, folder):
    """Every array of the check `kind`: row, name, dtype, and whether it is what is expected, if anything is."""
    save_arrays(folder / "inputs.npz", {"input": inputs})
    check = own_code.checks(
        {"function": f"{build_fn.__module__}:{build_fn.__name__}", "inputs": folder / "inputs.npz", "names": None,
         "seed": 0, "training": False, "gradients": True, "tolerance": 1e-5, "gradient_tolerance": 1e-4}
    )[kind]  # fmt: skip
    scene = Scene(BACKEND, "own", folder, {BACKEND: folder})
    check.prepare(scene)
    write(folder / "measured.npz", check.run(scene), check.tolerances)
    return [
        (m.row, m.name, m.actual.dtype.name, m.expected is not None and difference(m.actual, m.expected).equal_bits)
        for m in read(folder / "measured.npz")
    ]


def test_gradients_are_of_the_first_float_output(tmp_path):
    assert measured("own-code", functions.numbers, X, tmp_path) == [
        ("outputs", "output 0", "int32", False),
        ("outputs", "output 1", "complex64", False),
        ("outputs", "output 2", "float32", False),
        ("gradients", "input 0", "float32", False),
        ("gradients", "numbers/variable", "float32", False),
    ]


@pytest.mark.parametrize(("build_fn", "inputs"), [(functions.ints, X), (functions.one_hot, np.array([[1], [4]]))])
def test_ints_have_no_gradients(build_fn, inputs, tmp_path):
    assert [row for row, *_ in measured("own-code", build_fn, inputs, tmp_path)] == ["outputs"]


def test_bfloat16_has_gradients_and_is_saved_and_loaded(tmp_path):
    dtypes = {dtype for _, _, dtype, _ in measured("own-code", functions.in_bfloat16, X, tmp_path)}
    assert "bfloat16" in dtypes
    assert measured("save-load", functions.in_bfloat16, X, tmp_path) == [
        ("weights", f"dense/kernel from {BACKEND}", "bfloat16", True),
        ("weights", f"dense/bias from {BACKEND}", "bfloat16", True),
        ("outputs", f"output 0 from {BACKEND}", "bfloat16", True),
    ]


def test_weights_of_one_path_are_all_compared(tmp_path):
    assert measured("save-load", functions.twice, X, tmp_path)[:2] == [
        ("weights", f"twice/dense/kernel from {BACKEND}", "float32", True),
        ("weights", f"twice/dense/kernel (2) from {BACKEND}", "float32", True),
    ]
