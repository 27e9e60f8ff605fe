"""Which backend is chosen, what is said about it, and what happens if it is not there."""

import json
import os
import re
import subprocess
import sys
import types

import pytest

from keras_vit_edu import _backend
from keras_vit_edu._install import install_command
from tests.support import BACKEND

pytestmark = pytest.mark.any_backend

# The choice itself, in this process: `choose_backend` is told what is installed. --------------------------------------


class World:
    """What `choose_backend` looks at."""

    def __init__(self, monkeypatch, keras_home):
        self.monkeypatch, self.keras_home = monkeypatch, keras_home
        monkeypatch.setenv("KERAS_HOME", str(keras_home))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        monkeypatch.delitem(sys.modules, "keras")
        self.installs("tensorflow", "jax", "torch")
        self.runs("program.py")

    def installs(self, *backends):
        self.monkeypatch.setattr(_backend, "_is_installed", lambda backend: backend in backends)

    def configures(self, text):
        (self.keras_home / "keras.json").write_text(text)

    def asks_for(self, backend):
        self.monkeypatch.setenv("KERAS_BACKEND", backend)

    def runs(self, program, *arguments):
        self.monkeypatch.setattr(sys, "argv", [program, *arguments])
        self.monkeypatch.setattr(sys, "orig_argv", ["python", program, *arguments])

    def runs_the_module(self, module, *arguments):
        self.monkeypatch.setattr(sys, "argv", ["-m", *arguments])
        self.monkeypatch.setattr(sys, "orig_argv", ["python", "-m", module, *arguments])

    def chooses(self):
        """What Keras will take: `KERAS_BACKEND`, or None for its own choice."""
        is_ours = _backend.is_our_command(sys.argv, sys.orig_argv)  # found out when the package is imported
        self.monkeypatch.setattr(_backend, "OUR_COMMAND", is_ours)
        _backend.choose_backend()
        return os.environ.get("KERAS_BACKEND")


@pytest.fixture
def world(monkeypatch, tmp_path):
    return World(monkeypatch, tmp_path)


def test_without_a_word_keras_takes_tensorflow(world, capsys):
    assert world.chooses() is None
    assert capsys.readouterr() == ("", "")


def test_the_configured_backend_is_left_to_keras(world, capsys):
    world.installs("jax", "torch")
    world.configures('{"backend": "torch"}')
    assert world.chooses() is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("installed", "first"),
    [(("torch",), "torch"), (("jax",), "jax"), (("torch", "jax"), "jax")],
)
def test_if_the_default_is_not_installed_the_first_that_is_gets_chosen_and_one_line_says_so(
    world, capsys, installed, first
):
    world.installs(*installed)
    assert world.chooses() == first
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"keras_vit_edu: tensorflow is not installed, so Keras runs on {first} "
        f"(set KERAS_BACKEND={first} to choose it yourself).\n"
    )


def test_it_is_said_once(world, capsys):
    world.installs("torch")
    world.chooses()
    world.chooses()  # a child process finds KERAS_BACKEND set, as does this second call
    assert capsys.readouterr().err.count("\n") == 1


def test_if_the_configured_one_is_not_installed_tensorflow_comes_first(world, capsys):
    world.configures('{"backend": "theano"}')
    assert world.chooses() == "tensorflow"
    assert "theano is not installed, so Keras runs on tensorflow" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", '{"floatx": "float32"}', "[]", "null", '"torch"'])
def test_a_damaged_configuration_is_no_configuration(world, text):
    world.configures(text)
    world.installs("tensorflow", "torch")
    assert world.chooses() is None
    world.installs("torch")
    assert world.chooses() == "torch"


def test_the_environment_variable_wins_over_the_configuration(world, capsys):
    world.configures('{"backend": "torch"}')
    world.asks_for("jax")
    assert world.chooses() == "jax"
    assert capsys.readouterr() == ("", "")


def test_an_empty_environment_variable_asks_for_nothing(world):
    world.asks_for("")
    world.installs("torch")
    assert world.chooses() == "torch"


def test_a_backend_that_is_not_installed_names_the_extra_that_brings_it(world):
    world.asks_for("jax")
    world.installs("tensorflow", "torch")
    message = (
        f"The backend 'jax' is not installed. Install it: {install_command('jax')}. Installed here: tensorflow, torch."
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        world.chooses()


def test_none_installed(world):
    world.installs()
    with pytest.raises(ImportError, match=re.escape(f"none is installed. Install one: {install_command('jax')} (or")):
        world.chooses()
    world.asks_for("torch")
    with pytest.raises(ImportError, match=r"'torch' is not installed.*Installed here: none\."):
        world.chooses()


def test_an_unknown_backend_names_those_that_there_are(world):
    world.asks_for("pytorch")
    with pytest.raises(ImportError, match=r"Keras has no backend 'pytorch'. It has tensorflow, jax, torch\."):
        world.chooses()


def test_keras_may_be_asked_for_its_other_backends(world):
    world.asks_for("numpy")
    assert world.chooses() == "numpy"


def test_if_keras_is_there_already_its_backend_stays(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", running_on("jax"))
    world.asks_for("pytorch")  # Keras would have complained, or did not see it
    assert world.chooses() == "pytorch"


def running_on(backend):
    return types.SimpleNamespace(backend=types.SimpleNamespace(backend=lambda: backend))


# Our own command line. ------------------------------------------------------------------------------------------------

RUNS = {
    "keras-vit-edu": lambda world, *arguments: world.runs("/somewhere/bin/keras-vit-edu", *arguments),
    "keras-vit-edu.exe": lambda world, *arguments: world.runs("keras-vit-edu.exe", *arguments),
    "python -m keras_vit_edu": lambda world, *arguments: world.runs_the_module("keras_vit_edu", *arguments),
}
our_command = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@our_command
@pytest.mark.parametrize("option", [["--backend", "torch"], ["--backend=torch"]], ids=" ".join)
def test_the_commands_option_wins_over_the_environment(world, run, option):
    world.asks_for("jax")
    run(world, "train", *option, "--epochs", "1")
    assert world.chooses() == "torch"


@our_command
def test_without_the_option_the_command_takes_what_a_program_would(world, run):
    run(world, "train")
    assert world.chooses() is None
    world.asks_for("jax")
    assert world.chooses() == "jax"


@our_command
def test_the_last_of_several_counts_as_in_the_commands_own_parser(world, run):
    run(world, "train", "--backend", "jax", "--backend=torch")
    assert world.chooses() == "torch"


@our_command
@pytest.mark.parametrize(
    "arguments", [["--backend"], ["--backend", "tensorlow"], ["--backend=", "jax"], ["--backends=jax"]]
)
def test_what_is_no_backend_is_left_to_the_commands_own_parser(world, run, arguments):
    run(world, "train", *arguments)
    assert world.chooses() is None


@our_command
@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            "jax",
            "The backend 'jax' is not installed. Install it: {install}. Installed here: torch.",
        ),
        ("pytorch", "Keras has no backend 'pytorch'. It has tensorflow, jax, torch."),
    ],
)
def test_in_the_command_a_missing_backend_is_one_line_and_status_2(world, run, capsys, backend, message):
    world.installs("torch")
    world.asks_for(backend)
    run(world, "train")
    with pytest.raises(SystemExit) as stop:
        world.chooses()
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"keras-vit-edu: {message.format(install=install_command('jax'))}\n")


@pytest.mark.parametrize(
    "command_line",
    [
        ["train.py", "--backend", "torch"],
        ["/usr/bin/keras-vit-education", "--backend", "torch"],
        ["/usr/bin/pytest", "-m", "keras_vit_edu", "--backend", "torch"],
    ],
)
def test_the_backend_option_of_another_program_is_its_own(world, command_line):
    world.runs(*command_line)
    assert world.chooses() is None
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ


def test_the_backend_option_of_another_module_is_its_own(world):
    world.runs_the_module("torchrun", "--backend", "torch")
    assert world.chooses() is None


def test_an_interpreter_without_arguments(world, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "orig_argv", [])
    assert world.chooses() is None


@our_command
def test_the_command_says_it_when_it_computes_and_once(world, run, capsys):
    world.installs("jax")
    run(world, "train")
    world.chooses()
    assert capsys.readouterr() == ("", "")
    _backend.announce()
    _backend.announce()
    assert capsys.readouterr().err.count("so Keras runs on jax") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], True),
        (["--help"], True),
        (["train", "-h"], True),
        (["train", "--epochs", "1", "--help"], True),
        (["--version"], True),
        (["train", "--version"], False),  # no option of `train`, which says so
        (["train", "--run", "help"], False),
        (["classify", "--", "--help"], False),  # a file of that name
    ],
)
def test_what_asks_for_help(arguments, expected):
    assert _backend.help_is_among(arguments) == expected


@our_command
def test_the_command_keeps_tensorflow_quiet(world, run):
    run(world, "train")
    world.chooses()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_if_keras_runs_on_another_backend_already_the_command_says_so(world, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", running_on("jax"))
    world.runs("keras-vit-edu", "train", "--backend", "torch")
    with pytest.raises(SystemExit) as stop:
        world.chooses()
    assert stop.value.code == 2
    assert "Keras runs on jax already, so it cannot run on torch in this process." in capsys.readouterr().err


# What is installed. ---------------------------------------------------------------------------------------------------


def test_the_backend_that_runs_here_is_installed():
    assert BACKEND in _backend.installed_backends()
    assert set(_backend.installed_backends()) <= {"tensorflow", "jax", "torch"}


def test_a_hidden_backend_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, BACKEND, None)
    assert BACKEND not in _backend.installed_backends()


def test_a_folder_of_that_name_is_no_backend(tmp_path, monkeypatch):
    (tmp_path / "a_backend").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not _backend._is_installed("a_backend")
    (tmp_path / "a_backend" / "__init__.py").touch()
    assert _backend._is_installed("a_backend")


@pytest.mark.parametrize("name", ["", ".", "no.such.module", "no_such_module"])
def test_a_name_that_is_none_is_not_installed(name):
    assert not _backend._is_installed(name)


# In real processes. ---------------------------------------------------------------------------------------------------

# Writes what was imported into the file LOADED when the process ends.
AT_EXIT = """
import atexit

def write():
    with open(os.environ["LOADED"], "w") as file:
        file.write("\\n".join(sys.modules))

atexit.register(write)
"""

# `sys.modules[name] = None` would do for imports, but SciPy takes whatever is there for the module.
HIDE = """
import os, sys
from importlib.machinery import PathFinder

hidden = os.environ["HIDDEN"].split()

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Runs Python in a fresh process and an empty folder, where the backends named in `hidden` are not installed."""
    monkeypatch.chdir(tmp_path)  # which messages about installing look at
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(HIDE)

    def run(*arguments, hidden=(), **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS")}
        return subprocess.run(
            [sys.executable, *arguments],
            env={
                **kept,
                "KERAS_HOME": str(tmp_path / "keras"),
                "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), *filter(None, [os.environ.get("PYTHONPATH")])]),
                "HIDDEN": " ".join(hidden),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **environment,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def others():
    return [backend for backend in ("tensorflow", "jax", "torch") if backend != BACKEND]


WHICH = "import keras_vit_edu, keras; print(keras.backend.backend())"


def test_a_process_without_the_configured_backend_runs_on_the_installed_one(python, tmp_path):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text(json.dumps({"backend": others()[0]}))
    process = python("-c", WHICH, hidden=others())
    assert process.stdout == f"{BACKEND}\n", process.stderr
    assert process.stderr.count(f"{others()[0]} is not installed, so Keras runs on {BACKEND}") == 1


def test_a_process_that_asks_for_a_missing_backend_is_told_the_extra(python):
    missing = others()[0]
    process = python("-c", WHICH, hidden=others(), KERAS_BACKEND=missing)
    assert process.returncode == 1
    last_line = process.stderr.splitlines()[-1]
    assert last_line.startswith(f"ImportError: The backend '{missing}' is not installed.")
    assert re.search(rf'pip install ".*\[{missing}\]"', last_line)


@pytest.mark.parametrize("program", ["script", "module"])
def test_the_command_asked_for_a_missing_backend_says_so_in_one_line(python, tmp_path, program):
    (tmp_path / "keras-vit-edu").write_text("from keras_vit_edu.cli import main\nmain()\n")
    start = ["keras-vit-edu"] if program == "script" else ["-m", "keras_vit_edu"]
    process = python(*start, "train", "--backend", others()[1], hidden=others())
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr == (
        f"keras-vit-edu: The backend '{others()[1]}' is not installed. "
        f"Install it: {install_command(others()[1])}. Installed here: {BACKEND}.\n"
    )


def test_the_option_reaches_keras_before_it_is_imported(python, tmp_path):
    (tmp_path / "keras-vit-edu").write_text(WHICH)
    process = python("keras-vit-edu", "train", f"--backend={BACKEND}", KERAS_BACKEND=others()[0])
    assert (process.returncode, process.stdout) == (0, f"{BACKEND}\n")


HELP_OR_VERSION = [["--help"], ["--version"], [], ["train", "--help"], ["classify", "--preset", "x", "-h"]]


@pytest.mark.parametrize("arguments", HELP_OR_VERSION, ids=" ".join)
def test_help_and_version_do_without_keras_and_without_a_word_about_backends(python, tmp_path, arguments):
    """Which is less time than any `import keras` takes."""
    (tmp_path / "path" / "sitecustomize.py").write_text(HIDE + AT_EXIT)
    process = python("-m", "keras_vit_edu", *arguments, hidden=others(), LOADED=str(tmp_path / "loaded"))
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(("Usage: keras-vit-edu", "keras-vit-edu "))
    loaded = (tmp_path / "loaded").read_text().split()
    assert "typer" in loaded
    assert {"keras", "numpy", *_backend.BACKENDS}.isdisjoint(loaded)


def test_the_version_names_the_backend_that_would_be_taken(python):
    process = python("-m", "keras_vit_edu", "--version", hidden=others())
    assert process.stdout.endswith(f" on {BACKEND}\n")
    process = python("-m", "keras_vit_edu", "--version", hidden=_backend.BACKENDS)
    assert process.stdout.endswith(" on no backend\n")


def test_every_verb_has_its_help(python):
    verbs = re.findall(r"^  (\S+) {2,}\S", python("-m", "keras_vit_edu").stdout.partition("Commands:")[2], re.M)
    assert {"train", "evaluate", "classify", "fine-tune", "presets", "doctor", "parity"} <= set(verbs)
    for verb in verbs:
        assert f"Usage: keras-vit-edu {verb}" in python("-m", "keras_vit_edu", verb, "--help", COLUMNS="80").stdout


def test_the_summary_of_every_verb_is_whole_on_80_columns(python):
    text = python("-m", "keras_vit_edu", "--help", COLUMNS="80").stdout
    summaries = text.partition("Commands:\n")[2].splitlines()
    assert len(summaries) >= 7
    assert max(map(len, text.splitlines())) <= 80
    for line in summaries:
        assert re.fullmatch(r"  \S+ +[A-Z].*[^.]\.", line), line


@pytest.mark.parametrize("verb", ["presets", "doctor"])
def test_what_computes_nothing_says_nothing_about_backends(python, verb):
    process = python("-m", "keras_vit_edu", verb, "--json", hidden=others())
    assert (process.returncode, process.stderr) == (0, "")
    json.loads(process.stdout)


def test_what_computes_says_it(python):
    process = python("-m", "keras_vit_edu", "classify", "no_such_digit.png", hidden=others())
    said = process.stderr.count("tensorflow is not installed, so Keras runs on")
    assert said == (BACKEND != "tensorflow")
