"""The command `keras-vit-edu`: one file per verb, thin over the public API; `app` assembles them.

Exit status: 0 for success, 1 for a failure, 2 for wrong usage, 130 for an interruption. A user's mistake gives one line
that says what was wrong, never a traceback.

`--help` and `--version` import neither Keras nor the library.
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
