"""Facts for `keras-vit-edu doctor`: versions, device, precision, extras, data, caches."""

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras

from keras_vit_edu import _backend
from keras_vit_edu._install import install_command
from keras_vit_edu._machine import device, matrix_precision, threads, version_of
from keras_vit_edu._version import __version__
from keras_vit_edu.datasets.mnist import DATASETS, ENVIRONMENT_VARIABLE, locate

# The modules that show that an extra is installed.
EXTRAS = {
    "tensorflow": ("tensorflow",),
    "torch": ("torch",),
    "jax": ("jax",),
    "hub": ("keras_hub", "PIL"),
    "cli": ("typer", "filelock", "matplotlib", "PIL", "pydot", "scipy"),
    "docs": ("material", "mkdocstrings"),
    "dev": ("pytest", "hypothesis", "tox", "ruff", "mypy"),
}


def examine() -> dict[str, dict[str, Any]]:
    """The findings, by section and name, as JSON."""
    return {
        "versions": {
            "keras_vit_edu": __version__,
            "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            **{backend: _version_of_backend(backend) for backend in _backend.BACKENDS},
        },
        "computing": {
            "device": device(),
            "dtype policy": keras.config.dtype_policy().name,
            "matrix products": matrix_precision(),
            "threads": threads(),
        },
        "extras": {name: _extra(name, modules) for name, modules in EXTRAS.items()},
        "data": {name: locate(name) or f"not found; set {ENVIRONMENT_VARIABLE}" for name in DATASETS},
        "folders": {
            "Keras": str(_backend.keras_home()),
            "kagglehub cache": os.environ.get("KAGGLEHUB_CACHE") or str(Path.home() / ".cache" / "kagglehub"),
            ENVIRONMENT_VARIABLE: os.environ.get(ENVIRONMENT_VARIABLE) or "not set",
        },
    }


def _version_of_backend(backend: str) -> str:
    if backend not in _backend.installed_backends():
        return "not installed"
    return version_of(backend) or "installed"  # tensorflow-cpu, say


def _extra(name: str, modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if find_spec(module) is None]
    return "found" if not missing else f"lacks {', '.join(missing)}: {install_command(name)}"
