"""A verb whose extra is not installed gives one line that says how to install it, never a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_vit_edu
from keras_vit_edu._backend import BACKENDS
from keras_vit_edu._install import what_is_missing
from tests.test_backend import HIDE

pytestmark = pytest.mark.any_backend
pytest.importorskip("typer")
ROOT = Path(__file__).parents[1]

# What is hidden, the command, its exit status, and what its last line of errors names; None for no complaint.
CASES = [
    ("typer", "train", 2, r"typer: pip install .*\[cli\]"),
    ("typer", "--help", 2, r"typer: pip install .*\[cli\]"),
    ("safetensors", "presets", 2, "safetensors is not installed: pip install safetensors"),
    ("rich", "doctor", 2, "rich is not installed: pip install rich"),
    ("numpy", "presets", 2, "numpy is not installed: pip install numpy"),
    ("keras", "presets", 2, "keras is not installed: pip install keras"),
    ("filelock", "train --run out", 2, r"filelock: pip install .*\[cli\]"),
    ("matplotlib", "evaluate vit_mnist_hybrid", 2, r"matplotlib: pip install .*\[cli\]"),
    ("matplotlib", "classify digit.png --picture out.png", 2, r"matplotlib: pip install .*\[cli\]"),
    ("matplotlib", "train --augmentation digits --show-augmentation", 2, r"matplotlib: pip install .*\[cli\]"),
    ("scipy", "classify digit.png", 2, r"SciPy: pip install .*\[cli\]"),
    ("PIL", "classify digit.png", 2, r"Pillow: pip install .*\[cli\]"),
    ("PIL", "fine-tune photos --preset x --run out", 2, r"Pillow: pip install .*\[cli\]"),
    ("keras_hub", "presets --hub", 2, r"keras_hub: pip install .*\[hub\]"),
    ("keras_hub", "classify digit.png --preset vit_tiny_of_hub", 2, r"keras_hub: pip install .*\[hub\]"),
    ("keras_hub", "fine-tune photos --preset vit_tiny_of_hub --run out", 2, r"keras_hub: pip install .*\[hub\]"),
    ("matplotlib PIL filelock keras_hub pydot scipy", "presets", 0, None),
    ("matplotlib PIL filelock keras_hub pydot scipy", "doctor", 0, None),
    ("matplotlib PIL filelock keras_hub pydot scipy", "--version", 0, None),
    (" ".join(BACKENDS), "presets", 2, r"none is installed. Install one: pip install .*\[jax\]"),
    (" ".join(BACKENDS), "--help", 0, None),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a digit, and photographs of two classes."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("here")
    digit = Image.new("L", (200, 200), "white")
    ImageDraw.Draw(digit).line([(100, 30), (100, 170)], fill="black", width=20)
    digit.save(folder / "digit.png")
    for name in "ab":
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), (60 * i, 99, 9)).save(folder / "photos" / name / f"{i}.png")
    (folder / "path").mkdir()
    (folder / "path" / "sitecustomize.py").write_text(HIDE)
    return folder


# Takes cases as JSON, and prints status and error output of each. Keras, slow to import, is imported once.
FORKS = """
import json, os, runpy, sitecustomize, sys, tempfile, traceback
import keras

def run(hidden, command):
    for name in list(sys.modules):
        if name.partition(".")[0] in hidden.split():
            del sys.modules[name]
    sitecustomize.hidden[:] = hidden.split()
    sys.argv = ["keras-vit-edu", *command.split()]
    try:
        runpy.run_module("keras_vit_edu", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

found = []
for hidden, command in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile("w+") as errors:
        process = os.fork()
        if process == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(errors.fileno(), 2)
            status = run(hidden, command)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        errors.seek(0)
        found.append((status, errors.read()))
print(json.dumps(found))
"""


def python(here, hidden, *arguments):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS")}
    if not set(BACKENDS) <= set(hidden.split()):
        kept["KERAS_BACKEND"] = keras_vit_edu._backend.backend_to_come()
    path = os.pathsep.join([str(here / "path"), str(Path(keras_vit_edu.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=here, env={**kept, "PYTHONPATH": path, "HIDDEN": hidden, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forked(here):
    """Status and error output of the cases that import Keras."""
    of_keras = [
        (hidden, command)
        for hidden, command, _, _ in CASES
        if not {"numpy", "keras", *BACKENDS}.intersection(hidden.split()) and not command.startswith("--")
    ]
    if not hasattr(os, "fork"):
        return {}
    done = python(here, "", "-c", FORKS, json.dumps(of_keras))
    assert done.returncode == 0, done.stderr
    return dict(zip(of_keras, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("hidden", "command", "status", "named"), CASES, ids=lambda value: str(value)[:40])
def test_one_line_says_what_to_install(here, forked, hidden, command, status, named):
    if (hidden, command) in forked:
        found, said = forked[hidden, command]
    else:
        done = python(here, hidden, "-m", "keras_vit_edu", *command.split())
        found, said = done.returncode, done.stderr
    assert "Traceback" not in said
    assert found == status, said
    if named is None:
        assert said == ""
    else:
        assert re.search(named, said.splitlines()[-1]), said
        assert said.splitlines()[-1].startswith("keras-vit-edu: ")


def test_a_module_that_we_do_not_know_is_a_bug_of_somebody():
    assert what_is_missing(ModuleNotFoundError("No module named 'x'", name="x")) is None
    assert what_is_missing(ModuleNotFoundError("No module named 'keras_vit_edu.x'", name="keras_vit_edu.x")) is None
    assert what_is_missing(ImportError("cannot import name 'x' from 'keras'", name="keras")) is None
    assert what_is_missing(ModuleNotFoundError(name="PIL.Image")) == what_is_missing(ModuleNotFoundError(name="PIL"))
