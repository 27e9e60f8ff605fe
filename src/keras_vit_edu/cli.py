"""The command `keras-vit-edu`: thin verbs over the public API.

Exit status: 0 for success, 1 for a failure on the way, 2 for bad usage, 130 for an interruption. A user's mistake gives
one line that says what was wrong, never a traceback.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

from keras_vit_edu import _backend

try:
    import typer
except ImportError:
    sys.exit('keras-vit-edu: the command needs typer: pip install "keras-vit-edu[cli]"')

import keras
from rich.console import Console

import keras_vit_edu
from keras_vit_edu import datasets, training
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.random import SEED_LIMIT

# What `--epochs` is if nobody says: the course's 60 on a whole dataset, a few minutes' worth on the sample.
EPOCHS = {"mnist-sample": 15, "mnist": 60, "fashion-mnist": 60}
INTERRUPTED = 130  # as a shell reports it
# Of click, or of the copy of it inside newer versions of typer.
UsageError: Any = typer.BadParameter.__base__
SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(name=_backend.COMMAND, add_completion=False, context_settings=SETTINGS, rich_markup_mode=None)


class Backend(StrEnum):
    """What `--backend` takes."""

    tensorflow = "tensorflow"
    jax = "jax"
    torch = "torch"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        arguments: what stands after `keras-vit-edu`; None for those of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(arguments or ["--help"], prog_name=_backend.COMMAND, standalone_mode=False) or 0
    except UsageError as error:
        return _complain(error.format_message(), 2)
    except UsersMistake as error:
        return _complain(str(error), 2)
    except OSError as error:  # a full disk, say
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    return _complain("interrupted", status) if status == INTERRUPTED else status


class UsersMistake(Exception):
    """Something in what the user gave; its text is all that is shown."""


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    """A `ValueError` in here is about what the user gave. (From anywhere else it is a bug, and keeps its traceback.)"""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise UsersMistake(str(error)) from None


def _complain(text: str, status: int) -> int:
    print(f"{_backend.COMMAND}: {' '.join(text.split())}", file=sys.stderr)
    return status


def _show_version(asked: bool) -> None:
    if asked:
        print(f"keras-vit-edu {keras_vit_edu.__version__}, Keras {keras.__version__} on {keras.backend.backend()}")
        raise typer.Exit


@app.callback()
def keras_vit_edu_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show versions and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Vision Transformers that you can read, in Keras, on TensorFlow, PyTorch and JAX."""


@app.command()
def train(
    preset: Annotated[
        str, typer.Option(help="Name of a preset, or a folder with one; its weights are not used.")
    ] = "vit_mnist_program_p",
    dataset: Annotated[
        str | None, typer.Option(help="mnist-sample (bundled, the default), mnist or fashion-mnist.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="An npz file or a folder with the four IDX files; the dataset is mnist if not said."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often to go through the training images. [default: 15 or 60]")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEED_LIMIT - 1, help="The same seed gives the same run on every backend.")
    ] = 0,
    backend: Annotated[Backend | None, typer.Option(help="What Keras computes with.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: runs/PRESET-DATASET-BACKEND-SEED]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in that folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but errors.")] = False,
) -> None:
    """Train a Vision Transformer from scratch and evaluate it on the test images."""
    console = Console(quiet=quiet, highlight=False, soft_wrap=True)
    dataset = dataset or ("mnist-sample" if data is None else "mnist")
    with _checking():
        images = datasets.load(dataset, data)
        keras.utils.set_random_seed(seed)
        model = ViTClassifier.from_preset(preset, load_weights=False)
        _check_fit(model, images)
        here = keras.backend.backend()
        run = run or Path("runs") / f"{Path(preset).name}-{dataset}-{here}-{seed}"
        folder = training.RunFolder(run, overwrite=overwrite)
    epochs = epochs or EPOCHS[dataset]

    console.print(
        f"{model.name}, {model.count_params():,} parameters, on {here} ({training.device()}), seed {seed}\n"
        f"{dataset} from {images.source}: {len(images.x_train):,} training images (the last 10 % for validation), "
        f"{len(images.x_test):,} test images\n"
        f"{epochs} epochs, into {folder}"
    )
    record = training.train(model, images, folder, epochs, seed=seed, console=console)
    console.print(
        f"test accuracy {record['test_accuracy']:.4f}, loss {record['test_loss']:.4f}, "
        f"{record['timings']['training_seconds']:.0f} s of training\n"
        f"{folder}{os.sep}: {', '.join(file.name for file in folder.files())}"
    )


def _check_fit(model: ViTClassifier, images: datasets.ImageDataset) -> None:
    image_shape = images.x_train.shape[1:]
    if tuple(model.input_shape[1:]) != image_shape or model.num_classes < len(images.class_names):
        raise ValueError(
            f"{model.name} takes images of shape {tuple(model.input_shape[1:])} and tells {model.num_classes} classes "
            f"apart; {images.name} has images of shape {image_shape} of {len(images.class_names)} classes."
        )
