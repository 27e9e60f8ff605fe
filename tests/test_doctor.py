import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_vit_edu
from keras_vit_edu import _backend, doctor
from keras_vit_edu._install import install_command


def test_it_names_versions_backend_and_device():
    found = doctor.examine()
    assert found["versions"]["keras"] == keras.__version__
    assert found["versions"]["keras_vit_edu"] == keras_vit_edu.__version__
    assert found["versions"]["backend"] == keras.backend.backend()
    for backend in _backend.BACKENDS:
        assert (found["versions"][backend] == "not installed") == (backend not in _backend.installed_backends())
    assert found["computing"]["device"]
    assert found["computing"]["dtype policy"] == "float32"
    assert json.loads(json.dumps(found)) == found


def test_a_missing_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "cli", ("typer", "no_such_module"))
    extras = doctor.examine()["extras"]
    assert extras["cli"] == f"lacks no_such_module: {install_command('cli')}"
    assert extras[keras.backend.backend()] == "found"


def test_it_finds_data_where_loading_would(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    data = doctor.examine()["data"]
    assert data["mnist-sample"] == "the package"
    assert data["mnist"].startswith("not found")
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros(1))
    (tmp_path / "keras" / "datasets" / "fashion-mnist").mkdir(parents=True)
    data = doctor.examine()["data"]
    assert data["mnist"] == str(tmp_path / "mnist.npz")
    assert data["fashion-mnist"] == str(tmp_path / "keras" / "datasets" / "fashion-mnist")


@pytest.mark.any_backend
def test_as_a_command():
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(
        [sys.executable, "-m", "keras_vit_edu", "doctor", "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["versions"]["backend"] == keras.backend.backend()
