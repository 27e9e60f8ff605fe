"""Which backend Keras runs on: decided here, before anything imports Keras.

Keras reads `KERAS_BACKEND`, else its configuration file, else takes TensorFlow, and fails if that backend is not
installed. In this case this file chooses the first installed backend of TensorFlow, JAX and PyTorch, and prints one
line: at once in a program that imports this package, in our own command as soon as it computes something.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from keras_vit_edu._install import install_command, what_is_missing

BACKENDS = ("tensorflow", "jax", "torch")
KERAS_ALSO_HAS = ("numpy", "openvino")  # for inference; only on request
COMMAND = "keras-vit-edu"
HELP_OPTIONS = ("-h", "--help")
VERSION_OPTION = "--version"

_unsaid: list[str] = []  # lines that `announce` will print


def choose_backend() -> None:
    """Set `KERAS_BACKEND` so that `import keras` succeeds.

    Raises:
        ImportError: if the requested backend does not exist or is not installed, or if no backend is installed. Our own
            command then prints one line and exits with status 2.
    """
    if OUR_COMMAND:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings, not its warnings
    with explaining():
        _choose_backend(command_line_backend(sys.orig_argv) if OUR_COMMAND else None)
    if not OUR_COMMAND:
        announce()


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """In our own command, turn an `ImportError` of the block into one line and exit status 2.

    Elsewhere the error is not caught. An error that is neither ours nor about a module that we know is a bug, so it is
    not caught either.
    """
    try:
        yield
    except ImportError as error:
        text = what_is_missing(error) or (None if isinstance(error, ModuleNotFoundError) else str(error))
        if text is None or not OUR_COMMAND:
            raise
        print(f"{COMMAND}: {text}", file=sys.stderr)
        sys.exit(2)


def announce() -> None:
    """Print, once, which backend is used if Keras's own choice is not installed.

    Each verb of our command calls this before it computes.
    """
    while _unsaid:
        print(_unsaid.pop(), file=sys.stderr)


def help_is_among(arguments: Sequence[str]) -> bool:
    """Whether the arguments of our command contain `--help` or begin with `--version`.

    Without arguments the command shows its help too.
    """
    options = list(arguments)[: arguments.index("--") if "--" in arguments else None]
    return not arguments or arguments[0] == VERSION_OPTION or not set(HELP_OPTIONS).isdisjoint(options)


def _choose_backend(asked: str | None) -> None:
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if asked not in (None, running):
            raise ImportError(f"Keras runs on {running} already, so it cannot run on {asked} in this process.")
        return
    asked = asked or os.environ.get("KERAS_BACKEND")
    if asked:
        _require(asked)
        os.environ["KERAS_BACKEND"] = asked
        return
    configured, backend = _configured_backend(), _default_backend()
    if backend == configured:
        return
    if backend is None:
        raise ImportError(
            "Keras needs one backend and none is installed. "
            f"Install one: {install_command('jax')} (or [tensorflow], or [torch])."
        )
    _unsaid[:] = [
        f"keras_vit_edu: {configured} is not installed, so Keras runs on {backend} "
        f"(set KERAS_BACKEND={backend} to choose it yourself)."
    ]
    os.environ["KERAS_BACKEND"] = backend


def backend_to_come() -> str | None:
    """The backend that Keras runs on, or will run on, found without importing Keras. None if none is installed."""
    if "keras" in sys.modules:
        return str(sys.modules["keras"].backend.backend())
    return os.environ.get("KERAS_BACKEND") or _default_backend()


def _default_backend() -> str | None:
    """The backend in Keras's configuration if it is installed, else the first installed backend, else None."""
    configured = _configured_backend()
    return configured if _is_installed(configured) else next(iter(installed_backends()), None)


def installed_backends() -> list[str]:
    """The installed backends among tensorflow, jax and torch."""
    return [backend for backend in BACKENDS if _is_installed(backend)]


def _is_installed(backend: str) -> bool:
    try:
        spec = find_spec(backend)
    except (ImportError, ValueError):  # not a module name, or `sys.modules[backend] = None`
        return False
    return spec is not None and spec.origin is not None  # a folder called "jax" is a package without origin


def _require(backend: str) -> None:
    if backend in KERAS_ALSO_HAS:
        return
    if backend not in BACKENDS:
        raise ImportError(f"Keras has no backend {backend!r}. It has {', '.join(BACKENDS)}.")
    if not _is_installed(backend):
        raise ImportError(
            f"The backend {backend!r} is not installed. "
            f"Install it: {install_command(backend)}. "
            f"Installed here: {', '.join(installed_backends()) or 'none'}."
        )


def _configured_backend() -> str:
    """The backend in Keras's configuration file, TensorFlow if there is none (as Keras itself does)."""
    try:
        return str(json.loads((keras_home() / "keras.json").read_text())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def keras_home() -> Path:
    """Keras's folder, with its configuration and its downloads in `datasets/`."""
    home = os.path.expanduser("~")
    return Path(os.environ.get("KERAS_HOME", os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")))


def is_our_command(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Whether this process is `keras-vit-edu ...` or `python -m keras_vit_edu ...`.

    Args:
        argv: `sys.argv`. Its first entry is `-m` until Python has found the module.
        orig_argv: `sys.orig_argv`, all arguments of Python.
    """
    program = Path(argv[0]).name if argv else ""
    if program == "-m":
        return "-mkeras_vit_edu" in orig_argv or ("-m", "keras_vit_edu") in pairwise(orig_argv)
    return program.removesuffix(".exe") == COMMAND


def command_line_backend(arguments: Sequence[str]) -> str | None:
    """The value of the last `--backend` among the arguments of our own command.

    The command must know the backend before it imports Keras, and importing this package imports Keras. So it is read
    here, before the command's own parser (which refuses a value that is not a backend).
    """
    asked = None
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        value = value if equals else following
        if name == "--backend" and value in BACKENDS:
            asked = value
    return asked


# Computed once, at import: Python changes `sys.argv` later, when it has found the module of `-m`.
OUR_COMMAND = is_our_command(sys.argv, sys.orig_argv)
ONLY_HELP = OUR_COMMAND and help_is_among(sys.argv[1:])  # a help text or the versions: both work without Keras
