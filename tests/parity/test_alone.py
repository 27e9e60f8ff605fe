"""Two parity runs in one folder: the second is refused, and the first one's files stay."""

import subprocess
import sys

import pytest

from keras_vit_edu import cli, parity
from keras_vit_edu._backend import installed_backends
from keras_vit_edu._lock import locked

HERE = installed_backends()[:1]


def test_a_second_run_is_refused_in_one_line(tmp_path, capsys):
    with locked(tmp_path) as is_ours:
        assert is_ours
        with pytest.raises(parity.ResultsError, match="Another parity run is at work"):
            parity.run_suite(tmp_path, HERE, checks=["initial-weights"])
        assert cli.run(["parity", "--backends", HERE[0], "--checks", "initial-weights", "--out", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_process_that_was_killed_locks_nobody_out(tmp_path):
    code = (
        "import sys, time\nfrom keras_vit_edu._lock import locked\n"
        "with locked(sys.argv[1]) as is_ours: print(is_ours, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        with locked(tmp_path) as is_ours:
            assert not is_ours
        process.kill()
        process.wait()
    with locked(tmp_path) as is_ours:
        assert is_ours
