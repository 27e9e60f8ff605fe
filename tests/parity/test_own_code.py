"""`parity.check`: anyone's layer or model, on every installed backend."""

import keras
import numpy as np
import pytest

from keras_vit_edu import parity
from keras_vit_edu._backend import installed_backends
from tests.parity import functions

pytestmark = pytest.mark.together

INSTALLED = installed_backends()
TWO = ["torch", "jax"]  # the quickest to start, for what does not depend on which backends they are
X = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")


def test_a_layer_of_keras_has_the_same_outputs_and_gradients_everywhere():
    report = parity.check(functions.dense, X)
    assert report.passed
    report.raise_for_differences()
    assert report.backends == INSTALLED
    assert [(row.row, row.tolerance.limit) for row in report.rows] == [("outputs", 1e-5), ("gradients", 1e-4)]


def test_one_backend_alone_has_not_passed():
    report = parity.check(functions.dense, X, backends=INSTALLED[:1])
    assert not report.passed
    assert report.failures() == ["nothing was compared"]


def test_a_model_with_several_inputs_and_outputs_from_a_name_and_shapes():
    tokens = np.array([[0, 1, 6, 2]], "int32")
    report = parity.check("tests.parity.functions:two_inputs", [tokens, (1, 5)], gradients=False, backends=TWO)
    assert report.passed
    assert [row.row for row in report.rows] == ["outputs"]


INTS = np.array([[3, 1, 0, 2]] * 2, "int32")


@pytest.mark.parametrize(
    ("build_fn", "inputs"),
    [
        (functions.of_a_float_and_an_int, [(2, 4), INTS]),
        (functions.of_named_inputs, {"values": (2, 4), "keep": INTS > 1}),
        (functions.of_named_inputs, {"keep": INTS > 1, "values": np.ones((2, 4), "float32")}),
    ],
)
def test_inputs_of_whole_numbers_and_bools_go_beside_floats(build_fn, inputs):
    report = parity.check(build_fn, inputs, backends=TWO)
    assert report.passed
    assert [row.row for row in report.rows] == ["outputs", "gradients"]


def test_a_saved_model_of_named_inputs_loads():
    inputs = {"values": (2, 4), "keep": INTS > 1}
    assert parity.check_saving(functions.of_named_inputs, inputs, backends=TWO).passed


@pytest.mark.parametrize("inputs", [{}, {"values": {"nested": X}}, {1: X}])
def test_names_of_inputs_are_texts_and_what_they_name_is_an_array(inputs):
    with pytest.raises(ValueError, match="`inputs` must be"):
        parity.check(functions.of_named_inputs, inputs, backends=INSTALLED[:1])


def test_portable_dropout_agrees_in_training():
    assert parity.check(functions.portable_dropout, (4, 8), training=True, backends=TWO).passed


def test_a_difference_is_measured_and_raised():
    report = parity.check(functions.depends_on_the_backend, np.ones((1, 1), "float32"), gradients=False)
    assert not report.passed
    with pytest.raises(AssertionError, match=r"own-code: outputs on \w+: output 0 against \w+: 1\.\de-03"):
        report.raise_for_differences()
    assert parity.check(
        functions.depends_on_the_backend, np.ones((1, 1), "float32"), gradients=False, tolerance=3e-3, backends=TWO
    ).passed


def test_nan_never_passes():
    with pytest.raises(AssertionError, match="NaN"):
        parity.check(functions.nan, X, gradients=False, tolerance=np.inf, backends=TWO).raise_for_differences()


def test_saved_models_load_on_every_backend():
    report = parity.check_saving(functions.dense, X)
    report.raise_for_differences()
    assert [row.row for row in report.rows] == ["weights", "outputs"]


# Bad input. -----------------------------------------------------------------------------------------------------------


def test_a_function_that_no_other_process_can_import():
    def local():
        return functions.dense()

    for build_fn in (local, lambda: None, "__main__:build"):
        with pytest.raises(ValueError, match="that another process can import"):
            parity.check(build_fn, X)
    for name in ("no_such_module:build", "tests.parity.functions:no_such", "tests.parity.functions"):
        with pytest.raises(ValueError, match=r"cannot be imported: .*Received: " + name):
            parity.check(name, X)
    with pytest.raises(ValueError, match="must be a function"):
        parity.check("tests.parity.functions:NOT_A_FUNCTION", X)


def test_inputs_that_are_neither_arrays_nor_shapes():
    with pytest.raises(ValueError, match="arrays of numbers, or shapes"):
        parity.check(functions.dense, "two")


def test_a_backend_that_is_not_installed():
    with pytest.raises(ValueError, match="'theano'"):
        parity.check(functions.dense, X, backends=["theano"])


def test_a_function_that_raises():
    with pytest.raises(parity.ParityError, match=r"functions:raises failed on \w+: ZeroDivisionError: as it was asked"):
        parity.check(functions.raises, X, backends=TWO)


def test_a_function_that_reads_and_writes_does_not_disturb():
    report = parity.check(functions.talks, X, backends=TWO)
    assert report.failures() == []


def test_a_function_that_exits():
    with pytest.raises(parity.ParityError, match=r"functions:exits failed on \w+: SystemExit: enough"):
        parity.check(functions.exits, X, backends=TWO)


def test_a_module_that_exits(tmp_path, monkeypatch):
    (tmp_path / "a_script.py").write_text("import sys; sys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be imported: SystemExit\(3\)"):
        parity.check("a_script:build", X)


def test_another_architecture_each_time():
    with pytest.raises(parity.ParityError, match=r"another architecture than on .*: the weight dense/kernel has the"):
        parity.check(functions.another_each_time, X, backends=[keras.backend.backend()])


def test_another_architecture_on_each_backend():
    complaint = r"another architecture than on \w+: the weight dense/kernel has the shape \(5, [12]\)"
    with pytest.raises(parity.ParityError, match=complaint):
        parity.check(functions.another_on_each_backend, X, backends=["tensorflow", "jax"])
