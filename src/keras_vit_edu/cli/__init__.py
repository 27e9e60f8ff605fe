"""The command `keras-vit-edu`: thin verbs over the public API, a file each; `app` puts them together.

Exit status: 0 for success, 1 for a failure on the way, 2 for bad usage, 130 for an interruption. A user's mistake gives
one line that says what was wrong, never a traceback.

Where only a help text or the versions are asked for, neither Keras nor the library is imported.
"""

import sys

from keras_vit_edu import _backend
from keras_vit_edu._install import install_command

try:
    import typer  # noqa: F401
except ImportError:
    print(f"{_backend.COMMAND}: the command needs typer: {install_command('cli')}", file=sys.stderr)
    sys.exit(2)

from keras_vit_edu.cli.app import app, main, run

__all__ = ["app", "main", "run"]
