"""Two parity runs in one folder: the second is refused, and the first one's files stay."""

import subprocess
import sys

import filelock
import pytest

from keras_vit_edu import cli, parity
from keras_vit_edu._backend import installed_backends
from keras_vit_edu.parity.suite import LOCK

pytestmark = pytest.mark.any_backend

HERE = installed_backends()[:1]


def test_a_second_run_is_refused_in_one_line(tmp_path, capsys):
    with filelock.FileLock(tmp_path / LOCK):
        with pytest.raises(parity.ResultsError, match="Another parity run is at work"):
            parity.run_suite(tmp_path, HERE, checks=["initial-weights"])
        assert cli.run(["parity", "--backends", HERE[0], "--checks", "initial-weights", "--out", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_process_that_was_killed_locks_nobody_out(tmp_path):
    code = "import sys, time, filelock\nwith filelock.FileLock(sys.argv[1]): print(True, flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "True\n"
        with pytest.raises(parity.ResultsError, match="Another parity run is at work"):
            parity.compare_results([], tmp_path)
        process.kill()
        process.wait()
    parity.compare_results([], tmp_path)
    assert (tmp_path / "parity.json").is_file()


def test_without_filelock_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(parity.ResultsError, match=r"need filelock: pip install .*\[cli\]"):
        parity.compare_results([], tmp_path)
