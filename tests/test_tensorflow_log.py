"""Lines of TensorFlow's log, as it printed them on a machine without a GPU, and lines that are none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_vit_edu import _tensorflow_log

LOG = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795904443.539129   14334 cudart_stub.cc:31] Could not find cuda drivers on your machine.
I0000 00:00:1795905351.083352   18582 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use available CPU
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate flags.
E0000 00:00:1795905131.402500   17284 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error
2024-03-09 10:11:12.131415: I tensorflow/core/util/port.cc:113] oneDNN custom operations are on.
2024-03-09 10:11:12.131415: E external/local_xla/xla/stream_executor/cuda/cuda_fft.cc:485] Unable to register cuFFT
"""
OTHERS = """\
keras_vit_edu: tensorflow is not installed, so Keras runs on jax
F0000 00:00:1795905131.402500   17284 cpu.cc:52] Check failed: this ends the process
UserWarning: 2024-03-09 is a date

Ünïcode
"""


@pytest.mark.parametrize("written_by", ["C++", "Python"])
def test_only_the_log_is_kept_back(capfd, written_by):
    lines = [*LOG.splitlines(keepends=True), *OTHERS.splitlines(keepends=True)]
    with _tensorflow_log.kept_back():
        for line in (*lines[::2], *lines[1::2]):
            os.write(2, line.encode()) if written_by == "C++" else sys.__stderr__.write(line)
        sys.__stderr__.flush()
        assert capfd.readouterr().err == ""
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(OTHERS.splitlines())
    os.write(2, LOG.encode())
    assert capfd.readouterr().err == LOG  # afterwards nothing is held back


def test_an_error_passes_and_loses_no_line(capfd):
    with pytest.raises(ZeroDivisionError), _tensorflow_log.kept_back():
        os.write(2, b"a reason\n") / 0
    assert capfd.readouterr().err == "a reason\n"


def test_without_an_error_output_nothing_happens():
    program = "import os; os.close(2); from keras_vit_edu import _tensorflow_log\n"
    program += "with _tensorflow_log.kept_back(): print('done')"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "done\n"


def test_the_command_shows_nothing_of_it(tmp_path):
    """On TensorFlow: importing it, finding devices, and computing."""
    pytest.importorskip("tensorflow")
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    sample = Path(__file__).parent / "nowhere.png"
    done = subprocess.run(
        [sys.executable, "-m", "keras_vit_edu", "classify", str(sample)],
        env={**kept, "KERAS_BACKEND": "tensorflow"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert "There is no such file" in line
