"""What `keras-vit-edu doctor` finds: versions, device, precision, extras, data, caches."""

import importlib.metadata
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

import keras_vit_edu
from keras_vit_edu import _backend
from keras_vit_edu._install import install_command
from keras_vit_edu.datasets.mnist import DATASETS, ENVIRONMENT_VARIABLE, locate
from keras_vit_edu.training import device

# What each extra is known by.
EXTRAS = {
    "tensorflow": ("tensorflow",),
    "torch": ("torch",),
    "jax": ("jax",),
    "hub": ("keras_hub", "PIL"),
    "cli": ("typer", "filelock", "matplotlib", "PIL", "pydot"),
    "docs": ("material", "mkdocstrings"),
    "dev": ("pytest", "hypothesis", "tox", "ruff", "mypy"),
}


def examine() -> dict[str, dict[str, Any]]:
    """Findings by section, then by name; JSON."""
    return {
        "versions": {
            "keras_vit_edu": keras_vit_edu.__version__,
            "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            **{backend: _version_of_backend(backend) for backend in _backend.BACKENDS},
        },
        "computing": {"device": device(), "dtype policy": keras.config.dtype_policy().name, **precision_and_threads()},
        "extras": {name: _extra(name, modules) for name, modules in EXTRAS.items()},
        "data": {name: locate(name) or f"not found; --data PATH or {ENVIRONMENT_VARIABLE}" for name in DATASETS},
        "folders": {
            "Keras": str(_backend.keras_home()),
            "kagglehub cache": os.environ.get("KAGGLEHUB_CACHE") or str(Path.home() / ".cache" / "kagglehub"),
            ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE) or "not set",
        },
    }


def _version_of_backend(backend: str) -> str:
    if backend not in _backend.installed_backends():
        return "not installed"
    try:
        return importlib.metadata.version(backend)
    except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu, say
        return "installed"


def _extra(name: str, modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if find_spec(module) is None]
    return "found" if not missing else f"lacks {', '.join(missing)}: {install_command(name)}"


def precision_and_threads() -> dict[str, Any]:
    """How exactly matrices are multiplied, under "matrix products", and on how many threads."""
    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} (all cores)"
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        precision = torch.get_float32_matmul_precision()
        tf32 = torch.cuda.is_available() and torch.backends.cuda.matmul.allow_tf32
        return {"matrix products": _with_tf32(precision, tf32), "threads": torch.get_num_threads()}
    if backend == "jax":
        import jax

        asked = getattr(jax.config, "jax_default_matmul_precision", None) or "default"
        tf32 = asked in ("default", "tensorfloat32") and jax.default_backend() != "cpu"
        return {"matrix products": _with_tf32(asked, tf32), "threads": cores}
    if backend != "tensorflow":
        return {"matrix products": "full float32", "threads": cores}
    import tensorflow as tf

    tf32 = tf.config.experimental.tensor_float_32_execution_enabled() and bool(tf.config.list_physical_devices("GPU"))
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return {"matrix products": _with_tf32("default", tf32), "threads": threads or cores}


def _with_tf32(precision: str, tf32: bool) -> str:
    if tf32:
        return f"{precision}: float32 products are rounded to TF32 (10 bits) here, so they agree to 1e-3 only"
    return f"{precision}: full float32"
