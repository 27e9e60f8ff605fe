"""What importing the package brings, and what it leaves alone."""

import ast
import importlib
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import keras
import pytest

import keras_vit_edu
from keras_vit_edu import initializers, layers, models, transfer
from keras_vit_edu._backend import BACKENDS, installed_backends


def modules_after(*codes: str, backend: str) -> list[set[str]]:
    """The top-level modules that a fresh process holds after each of `codes`, run one after the other."""
    note = "import json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(f"{code}\n{note}" for code in codes)],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('["')]
    return [{name.partition(".")[0] for name in line} for line in lines]


IMPORT = "import keras_vit_edu"
FIT = """
import keras_vit_edu, keras, numpy as np
from keras_vit_edu.models import ViTBackbone, ViTClassifier
model = ViTClassifier(ViTBackbone((8, 8, 1), 4, 8, 1, 2, 3, 10), 3, head="mean", head_units=())
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(np.zeros((2, 8, 8, 1), "float32"), np.array([0, 2]), verbose=0)
"""


@pytest.mark.together
@pytest.mark.parametrize("backend", installed_backends())
def test_a_fit_on_one_backend_leaves_the_others_out(backend):
    (loaded,) = modules_after(FIT, backend=backend)
    assert backend in loaded
    by_keras_itself = {"jax"}  # `import keras` imports it where it is installed, for Orbax's checkpoints
    assert loaded.isdisjoint(set(BACKENDS) - {backend} - by_keras_itself)


@pytest.mark.together
@pytest.mark.parametrize("backend", installed_backends())
def test_the_import_brings_the_core_dependencies_and_nothing_else(backend):
    before, after = modules_after("import keras, numpy", IMPORT, backend=backend)
    added = after - before
    assert added - set(sys.stdlib_module_names) == {"keras_vit_edu", "safetensors"}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("library", "file"), [("keras_hub", "hub.py"), ("kagglehub", "hub.py"), ("huggingface_hub", "hugging_face.py")]
)
def test_one_file_imports_a_hub_and_only_when_it_is_used(library, file):
    importers = {}
    for path in Path(keras_vit_edu.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == library for name in names):
                importers.setdefault(path.name, []).append(node.col_offset)
    assert set(importers) <= {file}
    assert 0 not in importers.get(file, [])


@pytest.mark.any_backend
def test_the_version_is_that_of_the_distribution():
    assert keras_vit_edu.__version__ == importlib.metadata.version("keras-vit-edu")


@pytest.mark.any_backend
def test_types_are_shipped():
    assert (resources.files("keras_vit_edu") / "py.typed").is_file()


@pytest.mark.any_backend
def test_the_package_is_small_enough_for_a_wheel_of_30_megabytes():
    files = [file for file in Path(keras_vit_edu.__file__).parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files if "__pycache__" not in file.parts) < 30_000_000


# Names. ---------------------------------------------------------------------------------------------------------------


def test_the_subpackages_are_attributes_of_the_package():
    rooms = {"datasets", "explain", "initializers", "layers", "models", "parity", "random", "training", "transfer"}
    assert {*rooms, "load_classifier", "LoadedClassifier"} == set(keras_vit_edu.__all__)
    for name in rooms:
        assert getattr(keras_vit_edu, name) is importlib.import_module(f"keras_vit_edu.{name}")


def test_the_layers():
    assert set(layers.__all__) == {
        "ConvStem", "MultiHeadAttention", "MyMultiHeadAttention", "PatchEncoder", "Patches", "PortableDropout",
        "RelativePositionBias", "SequencePooling", "ShiftedPatches", "TokenDense", "TransformerBlock",
        "attention_weights", "fused_attention",
    }  # fmt: skip


# Registration: a saved file names its classes so. ---------------------------------------------------------------------

REGISTERED = {
    value.__name__: value
    for module in (layers, models, transfer, initializers)
    for value in (getattr(module, name) for name in module.__all__)
    if inspect.isclass(value) and issubclass(value, (keras.layers.Layer, keras.initializers.Initializer))
}


def test_there_is_something_to_register():
    assert {"Patches", "ViTClassifier", "GlorotUniform"} <= set(REGISTERED)
    assert len(REGISTERED) >= 22  # 7 layers, 3 models and 2 of transfer, 10 initializers


@pytest.mark.parametrize("name", REGISTERED)
def test_every_class_is_registered_under_the_packages_name(name):
    assert keras.saving.get_registered_name(REGISTERED[name]) == f"keras_vit_edu>{name}"
    assert keras.saving.get_registered_object(f"keras_vit_edu>{name}") is REGISTERED[name]
