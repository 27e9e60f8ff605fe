"""The command `keras-vit-edu`, assembled from its verbs."""

from __future__ import annotations

import importlib.metadata
import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

import keras_vit_edu
from keras_vit_edu import _backend, _interruption
from keras_vit_edu._install import what_is_missing
from keras_vit_edu.cli.classify import classify
from keras_vit_edu.cli.doctor import doctor
from keras_vit_edu.cli.evaluate import evaluate
from keras_vit_edu.cli.explain import explain
from keras_vit_edu.cli.fine_tune import fine_tune
from keras_vit_edu.cli.mistakes import UsersMistake, complain
from keras_vit_edu.cli.parity import parity_command
from keras_vit_edu.cli.presets import presets
from keras_vit_edu.cli.settings_options import PanelledCommand
from keras_vit_edu.cli.train import train

if not _backend.ONLY_HELP:
    from keras_vit_edu import parity, training

# From click, or from its copy inside newer versions of typer.
UsageError: Any = typer.BadParameter.__base__
SETTINGS = {"help_option_names": list(_backend.HELP_OPTIONS)}

app = typer.Typer(name=_backend.COMMAND, add_completion=False, context_settings=SETTINGS, rich_markup_mode=None)

for verb in (train, evaluate, fine_tune, presets, classify, explain, doctor):
    app.command(verb.__name__.replace("_", "-"), cls=PanelledCommand)(verb)
app.command("parity", cls=PanelledCommand)(parity_command)
app.command("predict", hidden=True, cls=PanelledCommand)(classify)  # the word of other libraries


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: the words after `keras-vit-edu`; defaults to the arguments of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if _backend.ONLY_HELP and arguments[:1] != [_backend.VERSION_OPTION]:
        arguments = [*[name for name in arguments if not name.startswith("-")][:1], "--help"]  # nothing else can run
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that cannot be printed must not end the work
    try:
        _interruption.check()
        status = app(arguments or ["--help"], prog_name=_backend.COMMAND, standalone_mode=False) or 0
    except UsageError as error:
        return complain(error.format_message(), 2)
    except (KeyboardInterrupt, typer.Abort):
        status = _interruption.STATUS
    except OSError as error:  # a full disk, say
        return complain(str(error), 1)
    except (UsersMistake, training.RunFolderError, parity.ResultsError) as error:
        return complain(str(error), 2)
    except training.TrainingFailed as error:
        return complain(str(error), 1)
    except ModuleNotFoundError as error:
        text = what_is_missing(error)
        if text is None:  # a bug keeps its traceback
            raise
        return complain(text, 2)
    return complain("interrupted", status) if status == _interruption.STATUS else status


def _show_version(asked: bool) -> None:
    if asked:
        backend = _backend.backend_to_come() or "no backend"
        print(f"keras-vit-edu {keras_vit_edu.__version__}, Keras {importlib.metadata.version('keras')} on {backend}")
        raise typer.Exit


@app.callback()
def keras_vit_edu_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show versions and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Vision Transformers you can read, in Keras, on TensorFlow, PyTorch and JAX."""
