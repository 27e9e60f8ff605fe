"""Which backend Keras runs on: decided here, before anything imports Keras.

Keras reads `KERAS_BACKEND`, else its configuration file, else takes TensorFlow, and fails if that one is not
installed. Here the first installed of TensorFlow, JAX and PyTorch is taken then, and one line says so.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
COMMAND = "keras-vit-edu"


def choose_backend() -> None:
    """Set `KERAS_BACKEND` so that `import keras` succeeds.

    Raises:
        ImportError: if the backend asked for is not installed, or none is.
    """
    asked = _command_line_backend(sys.argv, sys.orig_argv)
    if _is_our_command(sys.argv, sys.orig_argv):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings, not its warnings
    if "keras" in sys.modules and asked is None:
        return
    asked = asked or os.environ.get("KERAS_BACKEND")
    if asked:
        _require_installed(asked)
        os.environ["KERAS_BACKEND"] = asked
        return
    configured = _configured_backend()
    if _installed(configured):
        return
    for backend in BACKENDS:
        if _installed(backend):
            print(
                f"keras_vit_edu: {configured} is not installed, so Keras runs on {backend} "
                f"(set KERAS_BACKEND={backend} to say so yourself).",
                file=sys.stderr,
            )
            os.environ["KERAS_BACKEND"] = backend
            return
    raise ImportError(
        "Keras needs one backend and none is installed. "
        'Install one: pip install "keras-vit-edu[jax]" (or [tensorflow], or [torch]).'
    )


def installed_backends() -> list[str]:
    """The backends that can be imported here, of tensorflow, jax and torch."""
    return [backend for backend in BACKENDS if _installed(backend)]


def _installed(backend: str) -> bool:
    # `sys.modules[x] = None` and half-removed packages make find_spec raise ValueError.
    try:
        return find_spec(backend) is not None
    except ValueError:
        return False


def _require_installed(backend: str) -> None:
    if backend in BACKENDS and not _installed(backend):
        raise ImportError(
            f"The backend {backend!r} is not installed. "
            f'Install it: pip install "keras-vit-edu[{backend}]". Installed here: {installed_backends() or "none"}.'
        )


def _configured_backend() -> str:
    """The backend in Keras's configuration file, TensorFlow if there is none (as Keras itself does)."""
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((keras_home / "keras.json").read_text())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def _is_our_command(argv: list[str], orig_argv: list[str]) -> bool:
    script = Path(argv[0]).name if argv else ""
    if script.removesuffix(".exe") == COMMAND:
        return True
    return ("-m", "keras_vit_edu") in zip(orig_argv, orig_argv[1:], strict=False)


def _command_line_backend(argv: list[str], orig_argv: list[str]) -> str | None:
    """The value of `--backend` on our own command line.

    The command must know it before Keras is imported, and importing this package imports Keras, so it is read here,
    ahead of the command's own parser (which checks the spelling and says what is allowed).
    """
    if not _is_our_command(argv, orig_argv):
        return None
    for this, following in zip(orig_argv, [*orig_argv[1:], ""], strict=True):
        value = following if this == "--backend" else this.removeprefix("--backend=")
        if this.startswith("--backend") and value in BACKENDS:
            return value
    return None
