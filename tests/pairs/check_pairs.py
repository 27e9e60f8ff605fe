"""What one backend saved, another loads: nine pairs, each read in a fresh process that has the reader's backend alone.

    KERAS_VIT_EDU_PAIRS=FOLDER \\
    KERAS_VIT_EDU_PAIRS_PYTHONS=tensorflow=/path/to/python,torch=/path/to/python,jax=/path/to/python \\
    pytest --noconftest tests/pairs/check_pairs.py

FOLDER is where `test_write.py` wrote in each backend's environment; each python is the one of that environment. This
file needs pytest and nothing else, no Keras. A folder or a python that is missing is a failure, not a skip.
"""

import functools
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

BACKENDS = ("tensorflow", "torch", "jax")
PAIRS = [pytest.param(writer, reader, id=f"{writer} to {reader}") for writer in BACKENDS for reader in BACKENDS]
AGREE = 1e-5  # of the largest value

each_pair = pytest.mark.parametrize(("writer", "reader"), PAIRS)


def setting(name: str) -> str:
    """An environment variable that must be there."""
    if not os.environ.get(name):
        pytest.fail(f"{name} is not set; the top of {Path(__file__).name} says to what.")
    return os.environ[name]


@functools.cache
def all_read() -> dict[str, subprocess.CompletedProcess[str]]:
    """`read.py` in the environment of each reader, at the same time: one process for the files of all three writers."""
    with ThreadPoolExecutor() as threads:
        return dict(zip(BACKENDS, threads.map(read_by, BACKENDS), strict=True))


def read_by(reader: str) -> subprocess.CompletedProcess[str]:
    """`read.py` in the environment of `reader`."""
    pythons = dict(entry.split("=", 1) for entry in setting("KERAS_VIT_EDU_PAIRS_PYTHONS").split(","))
    folders = [str(Path(setting("KERAS_VIT_EDU_PAIRS")) / writer) for writer in BACKENDS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [pythons[reader], str(Path(__file__).with_name("read.py")), *folders],
        env={**environment, "KERAS_BACKEND": reader, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def what_was_read_by(reader: str) -> dict[str, Any]:
    """What that process reported."""
    process = all_read()[reader]
    if process.returncode != 0:
        pytest.fail(f"Reading with {reader} failed:\n{process.stderr[-4000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def report(writer: str, reader: str) -> dict[str, Any]:
    """What `reader` found in the folder of `writer`."""
    return what_was_read_by(reader)["reports"][writer]


@pytest.mark.parametrize("reader", BACKENDS)
def test_the_reader_has_its_backend_alone(reader):
    found = what_was_read_by(reader)
    assert found["backend"] == reader
    assert found["installed"] == [reader]


@each_pair
def test_a_model_gives_the_same_logits(writer, reader):
    assert report(writer, reader)["logits"] < AGREE


@each_pair
def test_its_dropout_goes_on_with_the_next_mask(writer, reader):
    assert report(writer, reader)["next_training_call"] < AGREE


@each_pair
def test_three_steps_of_fit_have_the_same_losses(writer, reader):
    assert report(writer, reader)["losses"] < AGREE


@each_pair
def test_weights_alone_are_loaded_into_a_model_made_from_json(writer, reader):
    found = report(writer, reader)
    assert found["logits_before_load_weights"] > 0.1
    assert found["logits_after_load_weights"] < AGREE
    assert found["next_training_call_after_load_weights"] < AGREE


@each_pair
def test_a_preset_gives_the_same_logits(writer, reader):
    assert report(writer, reader)["preset_logits"] < AGREE


@each_pair
def test_a_compiled_model_loads_with_compile_false(writer, reader):
    assert report(writer, reader)["compile_false_logits"] < AGREE


@each_pair
def test_a_compiled_model_trains_on_unless_torch_wrote_it_and_another_reads_it(writer, reader):
    found = report(writer, reader)
    if writer == "torch" and reader != "torch":
        assert found["compiled"].startswith("TypeError: Could not deserialize class 'Adam' because its parent module")
    else:
        assert (found["compiled"], found["compiled_training"]) == ("fine", "fine")
        assert found["compiled_logits"] < AGREE
        assert found["compiled_losses"] < AGREE  # so the optimizer's state came along
