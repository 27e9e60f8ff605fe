"""Facts about the machine and the process: versions, device, precision, threads."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import keras


def environment() -> dict[str, Any]:
    """The environment of a run for `run.json`: versions, backend, device, command, cores."""
    backend = keras.backend.backend()
    packages = ("keras-vit-edu", "keras", "numpy", backend)
    return {
        "versions": {"python": platform.python_version()} | {name: version_of(name) for name in packages},
        "backend": backend,
        "device": device(),
        "command": _command(),
        "cpu_count": os.cpu_count(),
    }


def version_of(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # TensorFlow has builds under other names
        return None


def _command() -> list[str]:
    program = Path(sys.argv[0]).name
    return ["keras-vit-edu" if program == "__main__.py" else program, *sys.argv[1:]]


def device() -> str:
    """The name of the device that Keras computes on, such as `"cpu"` or `"cuda:0 NVIDIA H100"`.

    Examples:
        >>> device()  # doctest: +SKIP
        'cpu'
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return f"cuda:0 {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cpu"
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return "cpu" if first.platform == "cpu" else f"{first.platform}:{first.id} {first.device_kind}"
    if backend != "tensorflow":
        return "cpu"
    import tensorflow as tf

    graphics = tf.config.list_physical_devices("GPU")
    if not graphics:
        return "cpu"
    return f"cuda:0 {tf.config.experimental.get_device_details(graphics[0]).get('device_name', 'GPU')}"


def matrix_precision() -> str:
    """The precision of float32 matrix products on this device, such as `"highest: full float32"`."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        precision = torch.get_float32_matmul_precision()
        return _with_tf32(precision, torch.cuda.is_available() and torch.backends.cuda.matmul.allow_tf32)
    if backend == "jax":
        import jax

        asked = getattr(jax.config, "jax_default_matmul_precision", None) or "default"
        return _with_tf32(asked, asked in ("default", "tensorfloat32") and jax.default_backend() != "cpu")
    if backend != "tensorflow":
        return "full float32"
    import tensorflow as tf

    tf32 = tf.config.experimental.tensor_float_32_execution_enabled() and bool(tf.config.list_physical_devices("GPU"))
    return _with_tf32("default", tf32)


def _with_tf32(precision: str, tf32: bool) -> str:
    if tf32:
        return f"{precision}: float32 products are rounded to TF32 (10 bits) here, so they agree to 1e-3 only"
    return f"{precision}: full float32"


def round_to_tf32(tf32: bool) -> None:
    """Let a GPU compute float32 matrix products in TF32, or in full float32."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "float32")
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(tf32)


def threads() -> int | str:
    """The number of threads of the backend; by default all cores that this process may use."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.get_num_threads()
    if backend == "tensorflow":
        import tensorflow as tf

        if set_by_the_user := tf.config.threading.get_intra_op_parallelism_threads():
            return set_by_the_user
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} (all cores)"
