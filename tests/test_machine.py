import sys

import keras
import pytest

from keras_vit_edu import _machine

BACKEND = keras.backend.backend()


def test_the_environment_of_a_run_names_versions_backend_device_and_cores():
    found = _machine.environment()
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["versions"]["keras"] == keras.__version__
    assert found["backend"] == BACKEND
    assert found["device"] == _machine.device()
    assert found["cpu_count"] >= 1


@pytest.mark.parametrize(
    ("program", "said"), [("/b/keras-vit-edu", "keras-vit-edu"), ("/b/__main__.py", "keras-vit-edu"), ("a.py", "a.py")]
)
def test_the_command_is_said_as_a_user_would_type_it(program, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "train", "--epochs", "2"])
    assert _machine.environment()["command"] == [said, "train", "--epochs", "2"]


def test_a_package_that_is_not_installed_has_no_version():
    assert _machine.version_of("no-such-package") is None


def test_products_of_matrices_are_in_full_float32_if_asked_for():
    before = _settings()
    try:
        _machine.round_to_tf32(False)
        assert _machine.matrix_precision().endswith("full float32")
        if _machine.device() == "cpu":  # which has no TF32
            _machine.round_to_tf32(True)
            assert _machine.matrix_precision().endswith("full float32")
    finally:
        _restore(before)


def _settings():
    if BACKEND == "torch":
        import torch

        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    if BACKEND == "jax":
        import jax

        return jax.config.jax_default_matmul_precision
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


def _restore(before):
    if BACKEND == "torch":
        import torch

        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
    elif BACKEND == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", before)
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(before)


def test_threads_are_counted():
    assert int(str(_machine.threads()).split()[0]) >= 1
