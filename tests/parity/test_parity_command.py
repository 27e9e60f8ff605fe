"""`keras-vit-edu parity` and the processes that it starts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import keras_vit_edu
from keras_vit_edu import cli
from keras_vit_edu._install import install_command
from keras_vit_edu.parity import ResultsError, checks, compare_results, run_suite
from keras_vit_edu.parity.standard_checks import standard
from tests.support import BACKEND

pytestmark = pytest.mark.any_backend

OTHER = next(backend for backend in ("tensorflow", "torch", "jax") if backend != BACKEND)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of three quick checks on this backend."""
    out = tmp_path_factory.mktemp("ran") / "out"
    status = cli.run(["parity", "--backends", BACKEND, "--checks", "patches, dropout, save-load", "--out", str(out)])
    return out, status


@pytest.fixture
def copied(ran, tmp_path):
    """Its folder again, under the name of another backend; entries of its results may be replaced."""

    def copy(name="copy", backend=OTHER, **entries):
        shutil.copytree(ran[0] / BACKEND, tmp_path / name / backend)
        file = tmp_path / name / backend / "results.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "backend": backend, **entries}))
        return tmp_path / name

    return copy


def one_line(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_one_backend_alone_is_compared_with_oracle_reference_and_itself(ran):
    out, status = ran
    assert status == 0
    found = json.loads((out / "parity.json").read_text())
    assert found["passed"] is True
    assert found["suite"] == "quick"
    assert list(found["backends"]) == [BACKEND]
    assert found["backends"][BACKEND]["tf32"] is False
    assert found["backends"][BACKEND]["device"]
    assert {row["check"] for row in found["rows"]} == {"patches", "dropout", "save-load"}
    assert all(row["cells"][BACKEND]["passed"] for row in found["rows"])
    assert (out / "parity.html").is_file()


def test_results_are_compared_without_running_anything(ran, copied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    assert cli.run(["parity", "--results", str(ran[0]), "--results", str(copied()), "--out", str(tmp_path / "o")]) == 0
    assert f"on {BACKEND}, {OTHER}" in capsys.readouterr().out
    found = json.loads((tmp_path / "o" / "parity.json").read_text())
    assert {len(row["cells"]) for row in found["rows"]} == {2}


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"version": "9.9"}, f"was made by keras_vit_edu 9.9; this is {keras_vit_edu.__version__}"),
        ({"format_version": 99}, "has format 99; this version reads format 1"),
        ({"checks_": {}}, "is damaged"),
        ({"checks": ["patches"]}, "is damaged: TypeError(\"checks is ['patches']\")"),
        ({"checks": {"patches": {}}}, "is damaged: KeyError('error')"),
        ({"checks": {"patches": {"error": 1, "excused": False}}}, "is damaged: TypeError("),
        ({"environment": None}, "is damaged: TypeError('environment is None')"),
    ],
)
def test_results_that_cannot_be_compared(copied, entries, complaint, capsys):
    assert cli.run(["parity", "--results", str(copied(**entries)), "--out", "o"]) == 2
    assert complaint in one_line(capsys)


@pytest.mark.parametrize("name", ["results.json", "patches.npz"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"[]"]
)
def test_damaged_results(copied, tmp_path, capsys, name, damage):
    folder = copied()
    file = folder / OTHER / name
    file.write_bytes(damage(file.read_bytes()))
    assert cli.run(["parity", "--results", str(folder), "--out", str(tmp_path / "o")]) == 2
    assert f"{file} is damaged: " in one_line(capsys)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_arrays_with_a_byte_changed(copied, tmp_path, capsys, at):
    folder = copied()
    file = folder / OTHER / "patches.npz"
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 255
    file.write_bytes(content)
    assert cli.run(["parity", "--results", str(folder), "--out", str(tmp_path / "o")]) == 2
    assert f"{file} is damaged: " in one_line(capsys)


def test_arrays_that_are_gone(copied, tmp_path, capsys):
    folder = copied()
    (folder / OTHER / "patches.npz").unlink()
    assert cli.run(["parity", "--results", str(folder), "--out", str(tmp_path / "o")]) == 2
    assert "patches.npz is damaged: " in one_line(capsys)


def test_folders_that_hold_no_results_or_the_same_backend_twice(ran, copied, tmp_path, capsys):
    assert cli.run(["parity", "--results", str(tmp_path)]) == 2
    assert "holds no results" in one_line(capsys)
    assert cli.run(["parity", "--results", str(ran[0]), "--results", str(copied(backend=BACKEND))]) == 2
    assert f"are both of {BACKEND} (cpu)" in one_line(capsys)


def test_results_of_one_backend_on_two_devices(ran, copied, tmp_path, capsys):
    other = copied(backend=BACKEND, environment={"device": "cuda:0 H100"}, tf32=True)
    assert cli.run(["parity", "--results", str(ran[0]), "--results", str(other), "--out", str(tmp_path / "o")]) == 0
    assert f"on {BACKEND} (cpu), {BACKEND} (cuda, TF32)" in capsys.readouterr().out
    found = json.loads((tmp_path / "o" / "parity.json").read_text())
    assert list(found["rows"][0]["cells"]) == list(found["backends"]) == [f"{BACKEND} (cpu)", f"{BACKEND} (cuda, TF32)"]


def test_tf32_is_shown_where_some_results_have_it(ran, copied, tmp_path):
    report = compare_results([ran[0], copied(tf32=True)], tmp_path)
    assert report.backends == [BACKEND, f"{OTHER} (TF32)"]


def test_the_suite_comes_from_the_results(ran, copied, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    full = str(copied(suite="full"))
    assert cli.run(["parity", "--results", full]) == 0
    assert "suite full" in capsys.readouterr().out
    assert (tmp_path / "parity-results" / "parity.json").is_file()
    assert cli.run(["parity", "--results", full, "--suite", "quick"]) == 2
    assert "is of the suite 'full', not 'quick'" in one_line(capsys)
    assert cli.run(["parity", "--results", str(ran[0]), "--results", full]) == 2
    assert "is of the suite 'full', not 'quick'" in one_line(capsys)


@pytest.mark.parametrize("more", [["--backends", BACKEND], ["--tf32"]])
def test_options_of_a_run_exclude_results(ran, capsys, more):
    assert cli.run(["parity", "--results", str(ran[0]), *more]) == 2
    assert "Leave out --backends and --tf32" in one_line(capsys)


def test_a_backend_that_is_not_installed_is_in_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vit_edu._backend.installed_backends", lambda: [])
    report = run_suite(tmp_path / "ran", [OTHER])
    assert report.failures() == [f"{OTHER}: it is not installed: {install_command(OTHER)}"]
    assert compare_results([tmp_path / "ran"], tmp_path / "compared").failures() == report.failures()
    run_suite(tmp_path / "ran", [OTHER])  # once more: the folder is ours


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--checks", "patches,no-such"], "There is no check 'no-such'. There are initial-weights"),
        (["--backends", ","], "Expected names, separated by commas"),
        (["--suite", "slow"], "slow"),
    ],
)
def test_bad_usage(arguments, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["parity", *arguments]) == 2
    assert complaint in one_line(capsys)


def test_an_unknown_and_a_broken_backend_are_named_and_the_other_goes_on(tmp_path, capsys, monkeypatch):
    package = tmp_path / "path" / OTHER / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("raise ImportError('broken on purpose')")
    monkeypatch.syspath_prepend(tmp_path / "path")
    backends = f"nosuch,{BACKEND},{OTHER}"
    out = tmp_path / "out"
    assert cli.run(["parity", "--backends", backends, "--checks", "patches", "--out", str(out)]) == 1
    shown = capsys.readouterr().out
    assert "nosuch: there is no backend 'nosuch'" in shown
    assert f"{OTHER}: its process ended with status 1: ImportError: broken on purpose" in shown
    found = json.loads((out / "parity.json").read_text())
    assert [row["cells"][BACKEND]["passed"] for row in found["rows"]] == [True]
    assert found["passed"] is False


def test_an_interruption_ends_the_processes(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def remember(*arguments, **keywords):
        started.append(popen(*arguments, **keywords))
        return started[-1]

    def interrupt(backend, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    with pytest.raises(KeyboardInterrupt):
        run_suite(tmp_path, [BACKEND], checks=["training"], on_step=interrupt)
    assert [process.poll() is not None for process in started] == [True]


@pytest.mark.skipif(os.name != "posix", reason="SIGINT, and groups of processes")
def test_sigint_ends_the_command_and_the_processes(tmp_path):
    # A shell starts what is to run in the background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "keras_vit_edu", "parity", "--backends", BACKEND]
    command += ["--checks", "patches,training", "--suite", "full", "--out", str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own, to see whether something is left
    ) as process:
        while not (tmp_path / BACKEND / "patches.npz").is_file():  # then it trains
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=15)
        assert process.returncode == 130
        errors = process.stderr.read()  # TensorFlow may have had its say before
        assert errors.endswith(b"keras-vit-edu: interrupted\n")
        assert b"Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_new_run_leaves_nothing_of_the_old_one(copied):
    out = copied("out")
    report = run_suite(out, ["nosuch"])
    assert report.broken.keys() == {"nosuch"}
    assert not (out / OTHER).exists()


def test_every_check_has_a_line_about_it_and_a_tolerance():
    for check in standard().values():
        assert check.what.endswith("."), check.name
        assert check.tolerances, check.name
    assert standard() == checks.CHECKS


def test_foreign_files_in_the_folder_are_never_touched(tmp_path):
    for folder, file in (("mine", "results.json"), (BACKEND, "code.py")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("{}")
    with pytest.raises(ResultsError, match="something other than results"):
        run_suite(tmp_path, [BACKEND], checks=["patches"])
    assert (tmp_path / "mine" / "results.json").is_file()
    assert (tmp_path / BACKEND / "code.py").is_file()


@pytest.mark.parametrize("name", ["nonsense", "training"])
def test_results_of_a_check_that_nobody_ran_are_missed(ran, tmp_path, name, capsys):
    assert cli.run(["parity", "--results", str(ran[0]), "--checks", name, "--out", str(tmp_path)]) == 2
    assert f"holds no results of a check {name!r}" in one_line(capsys)


def test_a_check_that_one_backend_did_not_run_is_missed(ran, copied, tmp_path):
    other = copied(checks={"patches": {"error": None, "excused": False, "seconds": 0.0}})
    with pytest.raises(ResultsError, match="holds no results of a check 'dropout'"):
        compare_results([ran[0], other], tmp_path / "out")
