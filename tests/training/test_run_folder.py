import json
import os
import stat
import subprocess
import sys

import pytest

from keras_vit_edu.training import RunFolder, RunFolderError

pytestmark = [pytest.mark.any_backend, pytest.mark.lowest]


def test_run_json_is_replaced_whole(tmp_path):
    run = RunFolder(tmp_path / "deep" / "run")
    run.update(status="running", seed=3)
    run.update(status="finished")
    assert json.loads((tmp_path / "deep/run/run.json").read_text()) == {"status": "finished", "seed": 3}
    assert sorted(os.listdir(run.path)) == [".lock", "run.json"]


def test_a_failed_write_leaves_the_old_run_json(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.update(status="running")
    with pytest.raises(TypeError):
        run.update(bad=object())
    assert json.loads((run / "run.json").read_text()) == {"status": "running"}


def test_history_has_a_row_per_epoch_from_1(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_history({"loss": [2.5, 1.25], "seconds": [1.0, 2.0]})
    assert (run / "history.csv").read_text() == "epoch,loss,seconds\n1,2.5,1.0\n2,1.25,2.0\n"


def test_an_empty_folder_is_taken(tmp_path):
    assert RunFolder(tmp_path).path == tmp_path


def test_a_finished_run_is_kept_without_overwrite(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.update(status="finished")
        (run / "notes.txt").write_text("mine")
        (run / "evaluate.json").write_text("{}")
        (run / "checkpoint").mkdir()
        (run / "checkpoint" / "epoch-00001.safetensors").write_text("")
    with pytest.raises(ValueError, match=r"holds a finished run.*another folder.*`overwrite=True`"):
        RunFolder(tmp_path / "run")
    with RunFolder(tmp_path / "run", overwrite=True) as run:
        run.configure({})
        assert sorted(os.listdir(tmp_path / "run")) == [".lock", "notes.txt"]


def test_a_run_is_overwritten_when_the_next_one_begins_and_no_sooner(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.update(status="finished")
        (run / "classifier").mkdir()
    before = (tmp_path / "run" / "run.json").read_bytes()
    with RunFolder(tmp_path / "run", overwrite=True) as run:
        assert run.record == {}
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert (tmp_path / "run" / "classifier").is_dir()
    with RunFolder(tmp_path / "run", overwrite=True) as run:
        run.configure({"seed": 1})
        run.update(status="running")
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "run.json"]


def test_overwrite_resumes_an_unfinished_run_of_the_same_configuration(tmp_path):
    def begin(epochs, overwrite):
        with RunFolder(tmp_path / "run", overwrite=overwrite) as run:
            run.configure({"recipe": {"epochs": epochs}})
            run.update(status="interrupted", epochs_done=run.record.get("epochs_done", 0) + 1)
            (run / "checkpoint").mkdir(exist_ok=True)
            (run / "checkpoint" / f"epoch-0000{run.record['epochs_done']}.safetensors").write_text("")
            return run.record["epochs_done"], len(os.listdir(run / "checkpoint"))

    assert begin(3, overwrite=False) == (1, 1)
    assert begin(3, overwrite=True) == (2, 2)
    assert begin(3, overwrite=True) == (3, 3)
    assert begin(4, overwrite=True) == (1, 1)  # another run: the old one is gone


def test_a_run_that_goes_on_no_longer_says_why_it_stopped(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.update(status="interrupted", stopped="2026-01-01T00:00:00+00:00", reason="SIGTERM", seed=1)
    with RunFolder(tmp_path / "run") as run:
        run.update(status="running")
        assert run.record == {"status": "running", "seed": 1}


def test_the_lock_is_let_go_of_when_a_folder_is_refused(tmp_path):
    with RunFolder(tmp_path) as run:
        run.update(status="finished")
    with pytest.raises(ValueError, match="finished run") as kept:
        RunFolder(tmp_path)
    RunFolder(tmp_path, overwrite=True).close()  # while `kept` still holds what the first one left
    assert kept


@pytest.mark.parametrize("left", ["run.json.0a1b2c3d.new", "augmentation.png"])
def test_files_from_before_run_json_do_not_prevent_a_run(tmp_path, left):
    (tmp_path / left).write_text("")
    RunFolder(tmp_path).close()
    assert sorted(os.listdir(tmp_path)) == [".lock", left]


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "evaluate.json", "checkpoint", "classifier"])
def test_a_folder_without_run_json_is_never_cleared(tmp_path, name):
    (tmp_path / name).write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds something other than a run"):
            RunFolder(tmp_path, overwrite)
    assert (tmp_path / name).read_text() == "precious"


def test_an_unfinished_run_with_the_same_configuration_is_resumed(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.configure({"recipe": {"epochs": 3, "ema": None}, "model": {"name": "a"}})
        run.update(status="interrupted")
    with RunFolder(tmp_path / "run") as run:
        run.configure({"recipe": {"epochs": 3, "ema": None}, "model": {"name": "a"}})
        assert run.record["status"] == "interrupted"
    with RunFolder(tmp_path / "run") as run:
        complaint = (
            r"another run: recipe\.epochs was 3 and is 5; recipe\.ema was null and is 0\.9; model\.name was \"a\""
        )
        with pytest.raises(ValueError, match=complaint):
            run.configure({"recipe": {"epochs": 5, "ema": 0.9}, "model": {"name": "b"}})


def test_entries_missing_in_an_older_run_get_their_defaults(tmp_path):
    defaults = {"recipe": {"ema": None, "seed": 0}, "model": {"config": {"stem": "patches", "sizes": ()}}}
    begun = {"recipe": {"epochs": 3}, "model": {"config": {"dim": 8}}}
    same = {"recipe": {"epochs": 3, "ema": None}, "model": {"config": {"dim": 8, "stem": "patches", "sizes": []}}}
    for now, complaint in [
        (same, None),
        ({**same, "recipe": {"epochs": 3, "ema": 0.9}}, r"recipe\.ema was null and is 0\.9"),
        ({**same, "recipe": {"epochs": 3, "momentum": 1}}, r"recipe\.momentum was null and is 1"),
        ({**same, "model": {"config": {"stem": "conv"}}}, r'dim was 8 and is null; .*stem was "patches" and is "conv"'),
    ]:
        with RunFolder(tmp_path / "run", overwrite=True) as run:
            run.configure(begun)
            run.update(status="interrupted")
        with RunFolder(tmp_path / "run") as run:
            if complaint is None:
                run.configure(now, defaults)
                assert run.record["configuration"] == same
            else:
                with pytest.raises(ValueError, match=complaint):
                    run.configure(now, defaults)


def test_one_process_at_a_time(tmp_path):
    holder = "import sys, keras_vit_edu.training as t; r = t.RunFolder(sys.argv[1]); print('in', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match="Another process is working in"):
            RunFolder(tmp_path)
    finally:
        process.kill()  # a dead process does not leave its lock behind
        process.communicate()
    RunFolder(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_run_json(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged.*`overwrite=True`"):
        RunFolder(tmp_path)
    RunFolder(tmp_path, overwrite=True)


def test_a_folder_with_other_things_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="something other than a run"):
            RunFolder(tmp_path, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["thesis.txt"]  # not even a lock


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="cannot be written"):
        RunFolder(tmp_path / "run" / "below")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        RunFolder(tmp_path / "run")


def test_a_place_that_nobody_can_write():
    # Not even root makes folders in /proc.
    with pytest.raises(ValueError, match="cannot be written"):
        RunFolder("/proc/run")


def test_a_configuration_of_an_older_version_is_compared_as_this_one_writes_it(tmp_path):
    with RunFolder(tmp_path / "run") as run:
        run.configure({"recipe": {"epochs": 3, "clip": 1.0}})
        run.update(status="interrupted")
    renamed = {"present": lambda old: {"recipe": {"epochs": 3, "clipnorm": old["recipe"]["clip"]}}}
    with RunFolder(tmp_path / "run") as run:
        run.configure({"recipe": {"epochs": 3, "clipnorm": 1.0}}, **renamed)  # writes nothing yet
    with RunFolder(tmp_path / "run") as run, pytest.raises(RunFolderError, match=r"recipe.clipnorm was 1.0 and is 2.0"):
        run.configure({"recipe": {"epochs": 3, "clipnorm": 2.0}}, **renamed)
