"""On torch and JAX no verb imports TensorFlow, in whatever process, though it is installed beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vit_edu
from keras_vit_edu import datasets
from keras_vit_edu._backend import installed_backends
from keras_vit_edu.transfer import TransferClassifier
from tests.support import vit_classifier
from tests.transfer.small import PREPROCESSING, classifier, coloured

pytest.importorskip("typer")
Image = pytest.importorskip("PIL.Image")

LOG = """
import atexit, os, sys

def note():
    with open(os.environ["NOTES"], "a") as file:
        print("tensorflow" in sys.modules, sys.orig_argv[1:], file=file)

atexit.register(note)
"""

# A program of the command's name, which runs one command after the other, and says of each how it ended and whether
# TensorFlow is there.
RUN = """
import json, shlex, sys
from keras_vit_edu import cli

for command in sys.argv[1:]:
    status = cli.run(shlex.split(command))
    print("\\n" + json.dumps([command, status, "tensorflow" in sys.modules]), flush=True)
"""


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A folder with small data, a small preset, a digit, photographs and a classifier of photographs."""
    folder = tmp_path_factory.mktemp("things")
    sample = datasets.load("mnist-sample")
    arrays = {"x_train": sample.x_train[:64], "y_train": sample.y_train[:64]}
    np.savez(folder / "data.npz", **arrays, x_test=sample.x_test[:32], y_test=sample.y_test[:32])
    model = vit_classifier(projection_dim=8, num_layers=1, key_dim=4, head="mean", head_units=(), name="small_model")
    model.save_to_preset(folder / "small")
    Image.fromarray(sample.x_test[0, :, :, 0]).resize((280, 280)).save(folder / "digit.png")
    for i, (image, label) in enumerate(zip(*coloured(18), strict=True)):
        (folder / "photos" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "photos" / "abc"[label] / f"{i:02}.png")
    TransferClassifier(classifier(), PREPROCESSING, ("a", "b", "c")).save(folder / "abc.zip")
    (folder / "path").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(LOG)
    (folder / "keras-vit-edu").write_text(RUN)
    return folder


TRAIN = "train --preset small --data data.npz --epochs 1 --batch-size 32 --overwrite --run run"
VERBS = [
    "presets",
    "doctor",
    "classify digit.png",
    "evaluate small --data data.npz",
    TRAIN,
    "classify photos/a/00.png --preset abc.zip",
    "evaluate abc.zip photos",
    "parity --backends BACKEND --checks initial-weights,dropout,save-load --out parity",
]


@pytest.mark.together
@pytest.mark.parametrize("backend", [backend for backend in installed_backends() if backend != "tensorflow"])
def test_no_verb_imports_it(things, backend):
    """All in one process, and the processes that they start; and one by the command's own door."""
    verbs = [verb.replace("BACKEND", backend) for verb in VERBS]
    if backend == "jax":  # on torch it wants a C++ compiler
        verbs.append(f"{TRAIN} --jit-compile")
    notes = things / f"{backend}.txt"

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=things,
            env={
                **os.environ,
                "KERAS_BACKEND": backend,
                "KERAS_VIT_EDU_CACHE": str(things / "features"),
                "NOTES": str(notes),
                "PYTHONPATH": os.pathsep.join([str(things / "path"), str(Path(keras_vit_edu.__file__).parents[1])]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "tensorflow" not in done.stderr.lower()
        return done.stdout

    ended = [json.loads(line) for line in python("keras-vit-edu", *verbs).splitlines() if line.startswith('["')]
    assert ended == [[verb, 0, False] for verb in verbs]
    python("-m", "keras_vit_edu", "--help")
    python("-m", "keras_vit_edu", "doctor")
    processes = notes.read_text().splitlines()
    assert len(processes) >= 4  # these three, and at least one that `parity` started
    assert [line for line in processes if line.startswith("True")] == []


# Seeds: what Keras's own function does, without TensorFlow. -----------------------------------------------------------

DRAWS = """
import json, random, sys
import keras_vit_edu, keras
import numpy as np
from keras import ops
from keras_vit_edu.random import set_seed

backend = keras.backend.backend()

def draws():
    x = np.ones((4, 6), "float32")
    layer, dropout = keras.layers.Dense(5), keras.layers.Dropout(0.5)
    found = {
        "weights": ops.convert_to_numpy(layer(x)).tolist(),
        "dropout": [ops.convert_to_numpy(dropout(x, training=True)).tolist() for _ in range(2)],
        "without a seed": [ops.convert_to_numpy(keras.random.uniform((3,))).tolist() for _ in range(2)],
        "python": random.random(),
        "numpy": np.random.random(),
        "seed": keras.utils.get_random_seed() if hasattr(keras.utils, "get_random_seed") else None,
    }
    if backend == "torch":
        import torch
        found["torch"] = torch.rand(3).tolist()
    if backend == "tensorflow":
        import tensorflow as tf
        found["tensorflow"] = tf.random.uniform((3,)).numpy().tolist()
        found["tf.data"] = [int(i) for i in tf.data.Dataset.range(9).shuffle(9)]
    return found

set_seed(1234)
ours, has_tensorflow = draws(), "tensorflow" in sys.modules
keras.utils.set_random_seed(1234)
print(json.dumps([ours, has_tensorflow, draws()]))
"""


@pytest.mark.together
@pytest.mark.parametrize("backend", installed_backends())
def test_set_seed_gives_the_bits_of_keras(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", DRAWS], env=environment, capture_output=True, text=True, check=True)
    ours, has_tensorflow, keras_own = json.loads(done.stdout.splitlines()[-1])
    assert ours == keras_own
    assert has_tensorflow == (backend == "tensorflow")


def test_set_seed_starts_kerass_own_draws_again():
    keras_vit_edu.random.set_seed(3)
    first = keras.ops.convert_to_numpy(keras.random.uniform((4,)))
    keras_vit_edu.random.set_seed(3)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.random.uniform((4,))), first)


@pytest.mark.parametrize("seed", [None, -1, 2**31, 1.0, "0", True])
def test_what_is_no_seed(seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        keras_vit_edu.random.set_seed(seed)
