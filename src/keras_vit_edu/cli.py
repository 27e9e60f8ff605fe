"""The command `keras-vit-edu`: thin verbs over the public API.

Exit status: 0 for success, 1 for a failure on the way, 2 for bad usage, 130 for an interruption. A user's mistake gives
one line that says what was wrong, never a traceback.

Where only a help text or the versions are asked for, neither Keras nor the library is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.metadata
import io
import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import keras_vit_edu
from keras_vit_edu import _backend, _interruption
from keras_vit_edu._install import install_command, what_is_missing

try:
    import typer
except ImportError:
    print(f"{_backend.COMMAND}: the command needs typer: {install_command('cli')}", file=sys.stderr)
    sys.exit(2)

if not _backend.ONLY_HELP:
    import keras
    import numpy as np
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from keras_vit_edu import datasets, parity, training, transfer
    from keras_vit_edu._checks import class_names as checked_names
    from keras_vit_edu._files import check_writable, printable
    from keras_vit_edu._printing import Console, print_json
    from keras_vit_edu._tables import folding_table, wide_console
    from keras_vit_edu.classify_files import (
        PICTURED,
        DigitSheet,
        PhotographSheet,
        classify_digits,
        classify_photographs,
    )
    from keras_vit_edu.classify_report import Classified, as_json, as_line, write_csv
    from keras_vit_edu.datasets.image_csv import scan_images
    from keras_vit_edu.datasets.mnist import CLASS_NAMES
    from keras_vit_edu.datasets.thumbnail import thumbnail
    from keras_vit_edu.models import overrides_for_images
    from keras_vit_edu.models.fit_to_images import NoFit
    from keras_vit_edu.models.keras_file import load_keras_file
    from keras_vit_edu.models.preset import Preset
    from keras_vit_edu.models.preset_files import CONFIG, METADATA, read_json
    from keras_vit_edu.parity.progress import ParityProgress
    from keras_vit_edu.random import set_seed
    from keras_vit_edu.training import run_record
    from keras_vit_edu.training.evaluate import CONFUSED
    from keras_vit_edu.training.run_folder import AUGMENTATION, CLASSIFIER
    from keras_vit_edu.training.train import fingerprint
    from keras_vit_edu.transfer import artifact_files, hub
    from keras_vit_edu.transfer.artifact_files import is_artifact
    from keras_vit_edu.transfer.photographs import image_files
    from keras_vit_edu.transfer.training_images import of_split

SAMPLE = "mnist-sample"  # the dataset that is taken if none is named
SAMPLE_EPOCHS = 20  # a few minutes on the bundled sample; the course's 60 are for all of MNIST
DIGIT_READER = "vit_mnist_hybrid"  # the preset that `classify` takes if not told
DOCTOR_NAMES = 19  # columns
PRESETS_COLUMNS, HUB_COLUMNS = 110, 120  # that a table of all we know of the presets takes
LONGEST_LINE = 2000  # characters of a complaint
# Of click, or of the copy of it inside newer versions of typer.
UsageError: Any = typer.BadParameter.__base__
SETTINGS = {"help_option_names": list(_backend.HELP_OPTIONS)}

app = typer.Typer(name=_backend.COMMAND, add_completion=False, context_settings=SETTINGS, rich_markup_mode=None)


class Backend(StrEnum):
    """What `--backend` takes."""

    tensorflow = "tensorflow"
    jax = "jax"
    torch = "torch"


class Suite(StrEnum):
    """What `parity --suite` takes."""

    quick = "quick"
    full = "full"


# Options of several commands.
BackendOption = Annotated[Backend | None, typer.Option(help="What Keras computes with.")]
SeedOption = Annotated[int | None, typer.Option(help="The same seed gives the same run on every backend.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run, or one of another configuration, in that folder.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show nothing but errors.")]
JitCompileOption = Annotated[
    bool | None,
    typer.Option(
        "--jit-compile/--no-jit-compile", help="Compile the step by XLA or torch.compile. [default: Keras decides]"
    ),
]
FallbackOption = Annotated[
    bool,
    typer.Option("--fallback", help="If the preset cannot be had, take ViT-B/16 of ImageNet, as the course."),
]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        arguments: what stands after `keras-vit-edu`; None for those of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if _backend.ONLY_HELP and arguments[:1] != [_backend.VERSION_OPTION]:
        arguments = [*[name for name in arguments if not name.startswith("-")][:1], "--help"]  # nothing else can run
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that cannot be printed there ends no work
    try:
        _interruption.check()
        status = app(arguments or ["--help"], prog_name=_backend.COMMAND, standalone_mode=False) or 0
    except UsageError as error:
        return _complain(error.format_message(), 2)
    except (KeyboardInterrupt, typer.Abort):
        status = _interruption.STATUS
    except OSError as error:  # a full disk, say
        return _complain(str(error), 1)
    except (UsersMistake, training.RunFolderError, parity.ResultsError) as error:
        return _complain(str(error), 2)
    except training.TrainingFailed as error:
        return _complain(str(error), 1)
    except ModuleNotFoundError as error:
        text = what_is_missing(error)
        if text is None:  # a bug keeps its traceback
            raise
        return _complain(text, 2)
    return _complain("interrupted", status) if status == _interruption.STATUS else status


class UsersMistake(Exception):
    """Something in what the user gave; its text is all that is shown."""


@contextlib.contextmanager
def _checking(only_ours: bool = False) -> Iterator[None]:
    """A `ValueError` in here is about what the user gave. (From anywhere else it is a bug, and keeps its traceback.)

    Args:
        only_ours: only one that this library itself raises; for long work, in which NumPy or Keras may complain too.
    """
    try:
        yield
    except (ValueError, ImportError) as error:
        if only_ours and isinstance(error, ValueError) and not _is_ours(error):
            raise
        raise UsersMistake(_text(error)) from None


def _text(error: ValueError | ImportError) -> str:
    return (what_is_missing(error) if isinstance(error, ImportError) else None) or str(error)


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised in this library's own code."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == keras_vit_edu.__name__


def _complain(text: str, status: int) -> int:
    text = printable(" ".join(text.split()))
    shown = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."  # a file may have a name of megabytes
    print(f"{_backend.COMMAND}: {shown}", file=sys.stderr)
    return status


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
    """Vision Transformers that you can read, in Keras, on TensorFlow, PyTorch and JAX."""


@app.command()
def train(
    preset: Annotated[
        str, typer.Option(help="Name of a preset, or a folder with one; its weights are not used.")
    ] = "vit_mnist_program_p",
    override: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Change an argument of the model: head=mean; may be repeated."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="mnist-sample (bundled, the default), mnist, fashion-mnist or emnist-letters, say."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images of any size: an npz file, a folder with a subfolder per class, MNIST's files, a CSV file."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Scale and cut every image to this size. [default: as they are]"),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe, or a JSON file; options below change it.")
    ] = "program-p",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="How often to go through the training images. [default: the recipe's; program-p on the sample: 20]"
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, adam, sgd or lion.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest rate of the schedule.")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, cosine or linear.")] = None,
    warmup_epochs: Annotated[float | None, typer.Option(help="How long the rate climbs first.")] = None,
    final_learning_rate: Annotated[float | None, typer.Option(help="Where the schedule ends.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled weight decay.")] = None,
    no_weight_decay: Annotated[
        list[str] | None, typer.Option(help="Part of the path of variables that do not decay; may be repeated.")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target spread over all classes.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Longest gradient.")] = None,
    ema: Annotated[float | None, typer.Option(help="Momentum of a moving average of the weights.")] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="How to vary the images: none, digits or clothes (a recipe file may say more).")
    ] = None,
    augmentation_final_epochs: Annotated[
        float | None, typer.Option(help="Over how many epochs at the end it weakens.")
    ] = None,
    augmentation_final_strength: Annotated[
        float | None, typer.Option(help="Down to what, in the last epoch: 0 is none, 1 is full strength.")
    ] = None,
    validation_split: Annotated[float | None, typer.Option(help="Share of the training images kept.")] = None,
    seed: SeedOption = None,
    backend: BackendOption = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: runs/PRESET-DATASET-BACKEND-SEED]")
    ] = None,
    overwrite: OverwriteOption = False,
    jit_compile: JitCompileOption = None,
    show_augmentation: Annotated[
        bool, typer.Option("--show-augmentation", help="Draw examples of the augmentation, and train nothing.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train a Vision Transformer from scratch, then test it.

    The same command again resumes an interrupted run.
    """
    console = Console(quiet=quiet, soft_wrap=True)
    size = _image_size(image_size)
    with _checking():
        settings = training.load_recipe(recipe)
        if data is None and dataset in (None, "mnist-sample") and recipe == "program-p":
            settings = settings.replace(epochs=SAMPLE_EPOCHS)
        settings = settings.replace(
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            schedule=schedule,
            warmup_epochs=warmup_epochs,
            final_learning_rate=final_learning_rate,
            weight_decay=weight_decay,
            no_weight_decay=no_weight_decay or None,
            label_smoothing=label_smoothing,
            clip_norm=clip_norm,
            ema=ema,
            augmentation=augmentation,
            augmentation_final_epochs=augmentation_final_epochs,
            augmentation_final_strength=augmentation_final_strength,
            validation_split=validation_split,
            seed=seed,
        )
        if settings.augmentation is None and (augmentation_final_epochs or augmentation_final_strength):
            raise ValueError("There is no augmentation that could weaken at the end; --augmentation names one.")
        if augmentation_final_strength is not None and not settings.augmentation_final_epochs:
            raise ValueError("The augmentation never weakens; --augmentation-final-epochs says over how many epochs.")
        begun = run or Path("runs") / f"{Path(preset).resolve().name}-mnist-{keras.backend.backend()}-{settings.seed}"
        images = _images(dataset, data, size, begun)
        kept = datasets.split(images, settings.validation_split)[1][1]  # complains if it leaves nothing
        notes = [*images.notes, *_without_validation(images, kept)]
        if show_augmentation:
            console.print(str(_draw_augmentation(images, settings, run)))
            return
        given = _overrides(override or ())
        try:
            arguments = overrides_for_images(preset, images.x_train.shape[1:], len(images.class_names), given)
        except NoFit as error:
            raise UsersMistake(f"{error} (--override NAME=VALUE; --image-size N)") from None
        adapted = [f"{name}={json.dumps(value)}" for name, value in arguments.items() if name not in given]
        set_seed(settings.seed)
        model: Any = Preset.from_preset(preset, load_weights=False, **arguments)
        _check_fit(model, images)
        settings.exempt_from_decay(model)  # complains if one of them is none
        here = keras.backend.backend()
        run = run or Path("runs") / f"{Path(preset).resolve().name}-{images.name}-{here}-{settings.seed}"
        folder = training.RunFolder(run, overwrite=overwrite)

    if not quiet:
        _backend.announce()
    for note in notes:
        console.print(f"note: {note}")
    if adapted:
        console.print(f"{model.name} is adapted to the images: {', '.join(adapted)}")
    console.print(
        f"{model.name}, {model.count_params():,} parameters, on {here} ({training.device()}), seed {settings.seed}\n"
        f"{printable(images.name)} from {printable(images.source)}: {len(images.x_train):,} training images, "
        f"of them the last {settings.validation_split:.0%} for validation; {len(images.x_test):,} test images\n"
        f"recipe {settings.name}, {settings.epochs} epochs, into {folder}"
    )
    with folder:
        record = training.train(model, images, folder, settings, console=console, jit_compile=jit_compile)
    console.print(
        f"test accuracy {record['test_accuracy']:.4f}, loss {record['test_loss']:.4f}, "
        f"{record['timings']['training_seconds']:.0f} s of training\n"
        f"{folder}{os.sep}: {', '.join(file.name for file in folder.files())}"
    )


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_PRESET",
            help="A run folder or a preset with weights; with PHOTOS, what a TransferClassifier saved, or a preset of "
            "keras_hub.",
        ),
    ],
    photos: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PHOTOS]", help="A folder of photographs, one subfolder per class; or a CSV of paths and labels."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Whose test images. [default: the run's dataset; else mnist-sample]")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Images to test on, as `train` takes them.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: the run's; else evaluate-PRESET-DATASET]")
    ] = None,
    most: Annotated[int, typer.Option("--mistakes", min=0, help="How many mistakes to show.")] = 24,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    backend: BackendOption = None,
) -> None:
    """Test a trained classifier, class by class, with its mistakes.

    It writes evaluate.json, confusion.png (which class is taken for which) and mistakes.png (the most confident ones).
    """
    named, model = model, _saved(model)
    if photos is not None or is_artifact(model):
        if photos is not None and out is None:
            out = Path(f"evaluate-{_short_name(named)}-{photos.resolve().name}")
        _evaluate_photographs(model, photos, dataset, data, out, most, json_only)
        return
    with _checking():
        classifier, of_run, class_names = _trained(model)
        is_own, are_all = dataset is None and data is None and of_run is not None, False
        if is_own:
            images = _images_of_run(Path(model), _sides(classifier))
        elif data is not None and dataset is None and (of_run is None or of_run not in CLASS_NAMES or of_run == SAMPLE):
            size = _sides(classifier) if os.path.isdir(data) else None
            images = _images(None, data, size, keep_test=False)
            own = None if images.has_test or of_run is None else _as_learned_from(Path(model), data, size)
            are_all = not images.has_test and own is None
            images = own or images
        else:
            images = datasets.load(dataset or of_run or SAMPLE, data)
        dataset = images.name
        if class_names is not None and class_names != images.class_names:
            raise ValueError(
                f"{named} tells other classes apart than {dataset} has; --dataset says whose images to test on. "
                f"Received: {', '.join(class_names[:3])}... and {', '.join(images.class_names[:3])}..."
            )
        if out is None and of_run is not None and not is_own:
            is_own = fingerprint(images) == _dataset_of_run(Path(model))[0]
        folder = out or (Path(model) if is_own else Path(f"evaluate-{_short_name(named)}-{dataset}"))
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is said before anything is done)

        _make_folder(folder)
        _backend.announce()
        found = training.evaluate(classifier, images.x_test, images.y_test, images.class_names)
    content = {"model": model, "dataset": dataset, "source": images.source, **found.to_json()}
    files = training.write_evaluation(found, folder, content, images.x_test.__getitem__, lambda i: f"no. {i}", most)
    if json_only:
        print_json(content)
        return
    console = Console(soft_wrap=True)
    for note in images.notes:
        console.print(f"note: {note}")
    console.print(_by_class(found))
    console.print(
        f"{classifier.name} on {'all' if are_all else 'the test'} images of {dataset}: "
        f"test accuracy {found.accuracy:.4f} +- {found.standard_error:.4f} "
        f"(standard error, {len(found.labels):,} images), loss {found.loss:.4f}\n{folder}{os.sep}: {', '.join(files)}"
    )


def _make_folder(folder: Path) -> None:
    """Of a report; before the long work, so that none is lost."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out names a folder to write into. Received: {folder}, a file")
    for name in ("evaluate.json", "confusion.png", "mistakes.png"):
        check_writable(folder / name)


def _by_class(found: training.Evaluation) -> Table:
    table = Table("class", "images", "precision", "recall", "F1")
    for row in found.per_class():
        shares = ("-" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        table.add_row(printable(row["class"]), str(row["images"]), *shares)
    return table


def _evaluate_photographs(
    model: str,
    photos: Path | None,
    dataset: str | None,
    data: Path | None,
    folder: Path | None,
    most: int,
    json_only: bool,
) -> None:
    with _checking():
        if photos is None or folder is None:
            raise ValueError(f"A classifier of photographs is tested on a folder of them: evaluate {model} PHOTOS")
        if dataset is not None or data is not None:
            raise ValueError("--dataset and --data do not go with PHOTOS, which are the images.")
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is said before anything is done)

        classifier = _photograph_classifier(model)
        with _progress("looking at the files") as progress:
            images = scan_images(photos, progress=progress)
        for file, reason in images.skipped:
            _complain(f"{file}: {reason}", 0)
        _make_folder(folder)
    _backend.announce()
    with _checking(only_ours=True), _progress("classifying") as progress:
        found = classifier.evaluate(images, progress=progress)
    occurring = found.of_occurring_classes()
    content = {
        "model": model,
        "photographs": str(photos),
        "skipped": [{"file": file, "reason": reason} for file, reason in images.skipped],
        **occurring.to_json(),
    }
    files = training.write_evaluation(
        found,
        folder,
        content,
        lambda wrong: map(thumbnail, datasets.load_images(images, wrong)),
        lambda i: images.files[i],
        most,
    )
    if json_only:
        print_json(content)
        return
    console = Console(soft_wrap=True)
    console.print(_by_class(occurring))
    console.print(
        f"{model} on {photos}: accuracy {found.accuracy:.4f} +- {found.standard_error:.4f} "
        f"(standard error, {len(found.labels):,} images, {len(images.skipped)} skipped), loss {found.loss:.4f}\n"
        f"{folder}{os.sep}: {', '.join(files)}"
        + (f" (confusion.png of the {CONFUSED} most confused classes)" if len(occurring.class_names) > CONFUSED else "")
    )


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], object]]:
    """A bar on the error output, if that is a terminal, and the function that moves it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(printable(what), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _saved(name: str) -> str:
    """What a run of `fine-tune` saved, if `name` is its folder; else the name as it is."""
    saved = artifact_files.located(name)
    return str(saved) if is_artifact(saved) else name


def _short_name(name: str) -> str:
    """What to call a run, an artifact or a preset: `runs/pets`, `runs/pets/classifier` and `pets.zip` are all pets."""
    path = Path(name).resolve()
    return path.parent.name if path.name == CLASSIFIER else path.name.removesuffix(".zip")


def _photograph_classifier(name: str, fallback: bool = False) -> transfer.TransferClassifier:
    """What a `TransferClassifier` saved, or a preset of keras_hub."""
    if is_artifact(name) or name.lower().endswith(".zip"):
        return transfer.TransferClassifier.load(name)
    _refuse_run(name)
    return transfer.TransferClassifier.from_preset(name, fallback=hub.COURSES_FALLBACK if fallback else None)


def _refuse_run(name: str) -> None:
    """Complain if `name` is the folder of a run. (A finished fine-tuning does not get here: see `_saved`.)"""
    if (Path(name) / "run.json").is_file():
        _trained(name)  # complains if it is a fine-tuning that has not come to its end
        raise ValueError(f"The run in {name} is of `train`, whose model does not classify photographs.")


def _is_of_hub(name: str) -> bool:
    """Whether a name is one for keras_hub, and not for this library's own presets; without a look into keras_hub."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / CONFIG).is_file() and not (folder / "run.json").is_file() and not _has_own_metadata(folder)
    own = list(Preset.presets)
    if "://" not in name and os.sep in name and not name.lower().endswith(".zip"):
        return False  # a folder that is not there, and is complained about as such
    begins_one = any(own_name.startswith(name) for own_name in own)  # or is one
    return "://" in name or not (begins_one or difflib.get_close_matches(name, own, cutoff=0.8))


def _has_own_metadata(folder: Path) -> bool:
    """Whether `metadata.json` is what this library writes (or is damaged): keras_hub has a file of that name too."""
    try:
        return not {"format_version", "weights_sha256"}.isdisjoint(read_json(folder / METADATA))
    except ValueError:
        return (folder / METADATA).is_file()


def _trained(name: str) -> tuple[keras.Model, str | None, tuple[str, ...] | None]:
    """The model of a run folder or a preset, the name of the run's dataset, and of the classes (None: nowhere said)."""
    if not (Path(name) / "run.json").is_file():
        model = cast(keras.Model, Preset.from_preset(name))
        metadata = Preset.presets.get(name) or read_json(Path(name) / METADATA)
        return model, None, checked_names(metadata["class_names"]) if "class_names" in metadata else None
    record = run_record.read_record(Path(name))
    if record.get("status", "finished") != "finished":
        verb = "fine-tune" if "fine_tuning" in record else "train"
        raise ValueError(f"The run in {name} is not finished (it says {record['status']!r}); {verb} resumes it.")
    if "fine_tuning" in record:
        raise ValueError(f"The run in {name} is a finished fine-tuning, but its {CLASSIFIER} is no longer there.")
    of_run, _ = run_record.dataset_of(record, Path(name))
    class_names = run_record.class_names_of(record, Path(name))
    return load_keras_file(Path(name) / "model.keras"), of_run["name"], class_names


def _dataset_of_run(run: Path) -> tuple[dict[str, Any], str]:
    """What a run of `train` learned from: its fingerprint, and where it was."""
    return run_record.dataset_of(run_record.read_record(run), run)


def _images_of_run(run: Path, size: tuple[int, int]) -> datasets.ImageDataset:
    """The images that a run of `train` was trained and tested on, from where they were or are now."""
    of_run, source = _dataset_of_run(run)
    is_there = of_run["name"] != SAMPLE and Path(source).exists()
    if of_run["name"] in CLASS_NAMES:
        images = datasets.resized(datasets.load(of_run["name"], source if is_there else None), size)
    elif is_there:
        images = _images(None, Path(source), size)
    else:
        raise ValueError(f"The images of the run in {run} are no longer at {source}; --data says what to test on.")
    if fingerprint(images) != of_run:
        raise ValueError(
            f"The run in {run} has learned from other images than those in {images.source}, which may be changed or "
            "another file; --data says what to test on."
        )
    return images


def _as_learned_from(run: Path, data: Path, size: tuple[int, int] | None) -> datasets.ImageDataset | None:
    """The images in `data` with the same part kept for the test as in a run that has learned from the others."""
    with contextlib.suppress(ValueError):  # too few to keep some
        images = _images(None, data, size)
        of_run = _dataset_of_run(run)[0]
        return images if {**fingerprint(images), "name": of_run["name"]} == of_run else None
    return None


def _images(
    dataset: str | None,
    data: Path | None,
    size: tuple[int, int] | None,
    begun: Path | None = None,
    keep_test: bool = True,
) -> datasets.ImageDataset:
    """The images that `--dataset`, `--data` and `--image-size` name; those of a run that was begun stay what they were.

    (Before it looked at what `--data` holds, `train` took all of it for MNIST.)
    """
    if dataset is not None or data is None:
        images = datasets.load(dataset or SAMPLE, data)
        return images if size is None else datasets.resized(images, size)
    with _progress("looking at the files") as progress:
        images = datasets.load_data(data, size, progress, keep_test)
    if size is None and begun is not None and images.name != "mnist" and (begun / "run.json").is_file():
        with contextlib.suppress(ValueError):
            was = _dataset_of_run(begun)[0] if read_json(begun / "run.json").get("status") != "finished" else {}
            as_mnist = datasets.load("mnist", data) if was.get("name") == "mnist" else images
            return as_mnist if fingerprint(as_mnist) == was else images
    return images


def _image_size(text: str | None) -> tuple[int, int] | None:
    """`"64"` to `(64, 64)`, `"48x64"` to `(48, 64)`."""
    if text is None:
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
        if min(height, width) < 1:
            raise ValueError
    except ValueError:
        raise UsersMistake(
            f"`--image-size` is a number of pixels, 64, or height x width, 48x64. Received: {text!r}"
        ) from None
    return height, width


def _sides(model: Any) -> tuple[int, int]:
    """Height and width of the images that a classifier takes."""
    shape = tuple(model.input_shape[1:])
    return shape[1:] if getattr(model, "data_format", "") == "channels_first" else shape[:2]


def _without_validation(images: datasets.ImageDataset, kept: np.ndarray) -> list[str]:
    """What to say of classes that training has and validation has not."""
    missing = np.setdiff1d(images.y_train, kept)
    names = ", ".join(printable(images.class_names[label]) for label in missing[:5].tolist())
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return [f"validation has no image of class {names}{more}"] if len(missing) else []


@app.command("fine-tune")
def fine_tune(
    photographs: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder with one subfolder per class; one with train/, val/, test/, each of that kind; or a CSV of "
            "paths and labels.",
        ),
    ],
    preset: Annotated[str, typer.Option(help="A pretrained model of keras_hub: a name, a handle or a folder.")],
    run: Annotated[Path, typer.Option(help="Folder to write into.")],
    validation: Annotated[
        Path | None, typer.Option(help="Such a folder to validate on. [default: a share of PHOTOS]")
    ] = None,
    options: Annotated[Path | None, typer.Option(help="A JSON file with options; those below change it.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="probe (the head), lp-ft (then the blocks), lora, full (no probe). [default: lp-ft]"),
    ] = None,
    probe_epochs: Annotated[int | None, typer.Option(help="Epochs of the probe. [default: 20]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the tuning after it. [default: 10]")] = None,
    probe_learning_rate: Annotated[float | None, typer.Option(help="[default: 0.01]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The tuning's highest rate. [default: 1e-4; lora: 1e-3]")
    ] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="What a layer's rate is of the rate of the one above. [default: 0.75]")
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Train the last blocks only. [default: all, and all else]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled weight decay. [default: 0.05]")] = None,
    rank: Annotated[int | None, typer.Option(help="Of LoRA. [default: 8]")] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="photographs, none, digits or clothes. [default: photographs]")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target spread over all classes.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step. [default: 32]")] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="Share of every class to validate on. [default: 0.2]")
    ] = None,
    balance: Annotated[
        bool,
        typer.Option("--balance/--no-balance", help="Give classes the same weight, however many images they have."),
    ] = True,
    image_size: Annotated[int | None, typer.Option(help="Another size than the preset's.")] = None,
    seed: SeedOption = None,
    fallback: FallbackOption = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for computed features.")] = None,
    backend: BackendOption = None,
    overwrite: OverwriteOption = False,
    jit_compile: JitCompileOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fine-tune a pretrained model on a folder of photographs.

    The result is RUN/classifier. The same command again resumes an interrupted run.
    """
    console = Console(quiet=quiet, soft_wrap=True)
    with _checking():
        settings = transfer.FineTuning.from_json({} if options is None else read_json(options)).replace(
            method=method,
            probe_epochs=probe_epochs,
            epochs=epochs,
            probe_learning_rate=probe_learning_rate,
            learning_rate=learning_rate,
            layer_decay=layer_decay,
            blocks=blocks,
            weight_decay=weight_decay,
            rank=rank,
            augmentation=augmentation,
            label_smoothing=label_smoothing,
            batch_size=batch_size,
            validation_share=validation_share,
            seed=seed,
        )
        preset = _saved(preset)
        _refuse_run(preset)
        photographs, validation = of_split(photographs, validation, console)
        images = _scanned(photographs, console)
        held = None if validation is None else _scanned(validation, console)
        set_seed(settings.seed)
        classifier = transfer.TransferClassifier.from_preset(
            preset, images.class_names, image_size, fallback=hub.COURSES_FALLBACK if fallback else None
        )
        folder = training.RunFolder(run, overwrite=overwrite)
    if not quiet:
        _backend.announce()
    with folder, _checking(only_ours=True):
        record = classifier.fit(
            images,
            held,
            settings,
            folder,
            transfer.BALANCED if balance else None,
            cache=cache,
            console=console,
            jit_compile=jit_compile,
        )
    accuracy = record["validation_accuracy"]
    files = ", ".join([f"classifier{os.sep}", *(file.name for file in folder.files())])
    console.print(
        ("" if accuracy is None else f"validation accuracy {accuracy:.4f}, loss {record['validation_loss']:.4f}\n")
        + f"{folder}{os.sep}: {files}"
    )


def _scanned(folder: Path, console: Console) -> datasets.ImageFolder:
    """The images of a folder; says how many of each class there are, and what was left out."""
    with _progress(f"looking at {folder}") as progress:
        images = scan_images(folder, progress=progress)
    counts = np.bincount(images.labels)
    classes = ", ".join(
        f"{printable(name)} ({count})" for name, count in zip(images.class_names[:20], counts, strict=False)
    )
    console.print(f"{len(images.class_names)} classes: {classes}{', ...' if len(images.class_names) > 20 else ''}")
    for file, reason in images.skipped[:10]:
        console.print(f"skipped {printable(str(file))}: {printable(reason)}")
    if len(images.skipped) > 10:
        console.print(f"... and {len(images.skipped) - 10} more, skipped")
    return images


@app.command()
def presets(
    of_hub: Annotated[bool, typer.Option("--hub", help="List those of keras_hub, for photographs.")] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    backend: BackendOption = None,
) -> None:
    """List the presets: what each is, its size and its accuracy."""
    if of_hub:
        _list_presets_of_hub(json_only)
        return
    known = ("description", "parameters", "test_accuracy", "test_standard_error", "test_images", "weights_dtype")
    rows = [
        {
            "name": name,
            **{key: metadata.get(key) for key in known},
            "dataset": metadata.get("dataset", {}).get("name"),
            "weights_bytes": metadata.get("weights_bytes") if metadata["weights_sha256"] else None,
        }
        for name, metadata in Preset.presets.items()
    ]
    if json_only:
        print_json(rows)
        return
    console = wide_console()
    is_narrow = console.width < PRESETS_COLUMNS
    lines = []
    for row in rows:
        accuracy = "-"
        weights = "no weights"
        if row["weights_bytes"]:
            accuracy = f"{row['test_accuracy']:.2%} ± {row['test_standard_error'] * 100:.2f}"
            accuracy += f"{chr(10) if is_narrow else ' '}({row['dataset']})"
            weights = f"{row['weights_bytes'] / 1e6:.2f} MB {row['weights_dtype']}"
        lines.append([row["name"], row["description"], f"{row['parameters']:,}", accuracy, weights])
    columns = ["name", "what", "parameters", "test accuracy", "weights"]
    if is_narrow:  # a row without an accuracy has no weights
        columns, lines = columns[:4], [line[:4] for line in lines]
    console.print(folding_table(columns, lines, console.width, whole=("name", "parameters", "test accuracy")))


def _list_presets_of_hub(json_only: bool) -> None:
    with _checking():
        rows = transfer.list_presets()
    if json_only:
        print_json([{**dataclasses.asdict(row), "note": row.note} for row in rows])
        return
    console = wide_console()
    columns = ["name", "family", "image", "parameters", "classes", "here"]
    lines = [
        [row.name, row.family, str(row.image_size or "-"), f"{row.parameters:,}", str(row.classes or "-"), row.note]
        for row in rows
    ]
    if console.width < HUB_COLUMNS:  # the name says family and size too
        columns = ["name", "parameters", "here"]
        lines = [[name, parameters, note] for name, _, _, parameters, _, note in lines]
    console.print(folding_table(columns, lines, console.width, whole=("name", "parameters")))


@app.command()
def classify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures of one digit each; or photographs, see --preset.")
    ],
    preset: Annotated[
        str,
        typer.Option(
            help="For digits: a preset with weights, a folder with one, or a run folder. For photographs: a preset of "
            "keras_hub (presets --hub lists them), or what a TransferClassifier saved."
        ),
    ] = DIGIT_READER,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes to name. [default: 3; photographs: 5]")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Below this probability the class is unknown.", show_default=False)
    ] = 0.0,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Refuse what does not look like a digit.")] = True,
    fallback: FallbackOption = False,
    picture: Annotated[
        Path | None, typer.Option(help="PNG to draw: what was given, what the model saw, how probable each class is.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="CSV to write: a row for each file.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    backend: BackendOption = None,
) -> None:
    """Say which digit is on a picture, or what is on a photograph.

    A digit may be on paper or on a screen, dark or light, anywhere on the picture.

    A folder stands for every file in it. A file that shows no digit, or is no picture, is reported; the others are
    classified, and the exit status is 1. `predict` is the same command.
    """
    preset = _saved(preset)
    reads_photographs = is_artifact(preset) or _is_of_hub(preset)
    with _checking():
        _check_outputs(threshold, picture, table)
        paths, without = _files_in(files)
        sheet: Any = None
        if reads_photographs:
            reader = _photograph_classifier(preset, fallback)
            sheet = PhotographSheet(reader) if picture else None
            results = classify_photographs(paths, reader, top or 5, sheet)
        else:
            if fallback:
                raise ValueError(f"--fallback is for presets of keras_hub. Received: --preset {preset}")
            classifier, _, class_names = _trained(preset)
            _check_reads_digits(preset, classifier, class_names)
            sheet = DigitSheet() if picture else None
            results = classify_digits(paths, classifier, top or 3, check, sheet)
    console = Console(quiet=json_only, soft_wrap=True)
    several: list[Classified] = []
    _backend.announce()
    results = itertools.chain(without, results)
    try:
        # No Pillow; several sizes for a model that takes images as they are; weights that give no numbers.
        with _checking(only_ours=True):
            for found in results:
                several.append(found)
                if found.error:
                    _complain(printable(f"{found.file}: {found.error}"), 1)
                else:
                    console.print(as_line(found, threshold))
    finally:  # an interruption loses nothing
        if table is not None and several:
            write_csv(several, threshold, table)
    if json_only:
        print_json([as_json(found, threshold) for found in several])
    if picture is not None and sheet.rows:
        sheet.draw(picture)
        console.print(f"{picture}" + (f": the first {PICTURED}" if len(paths) > PICTURED else ""))
    if table is not None:
        console.print(f"{table}")
    if any(found.error for found in several):
        raise typer.Exit(1)


app.command("predict", hidden=True)(classify)  # as users of other libraries type it


def _files_in(given: Sequence[Path]) -> tuple[list[Any], list[Classified]]:
    """The files that are given, folders opened; and the folders without any, unless there is nothing else."""
    paths: list[Any] = []
    without: list[Classified] = []
    for file in given:
        try:
            paths += image_files(file) or ()
        except ValueError as error:
            if len(given) == 1:
                raise
            without.append(Classified(file, error=str(error)))
    return paths, without


def _check_outputs(threshold: float, picture: Path | None, table: Path | None) -> None:
    """Complain, before anything is done, about what cannot be written."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"`--threshold` is a probability, 0 to 1. Received: {threshold}")
    for option, file, ending in (("--picture", picture, "PNG"), ("--csv", table, "CSV")):
        if file is not None and (file.suffix.lower() != f".{ending.lower()}" or file.is_dir()):
            raise ValueError(f"`{option}` names a {ending} file. Received: {file}")
        if file is not None:
            check_writable(file)
    if picture is not None:
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is said before anything is done)


def _check_reads_digits(name: str, model: Any, class_names: tuple[str, ...] | None) -> None:
    image_shape, classes = tuple(model.input_shape[1:]), model.output_shape[-1]
    known = class_names or (datasets.DIGITS if classes == len(datasets.DIGITS) else ())
    if image_shape != (28, 28, 1) or known != datasets.DIGITS:
        raise ValueError(
            "A model that reads digits takes images of shape (28, 28, 1) and tells 0 to 9 apart. "
            f"Received: {name}, images of shape {image_shape}, {classes} classes: {', '.join(known) or 'without names'}"
        )


@app.command()
def doctor(
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    backend: BackendOption = None,
) -> None:
    """Show versions, device, precision, threads, extras and data."""
    from keras_vit_edu.doctor import examine

    findings = examine()
    if json_only:
        print_json(findings)
        return
    for section, entries in findings.items():
        print(section)
        for name, value in entries.items():
            print(f"  {name:{DOCTOR_NAMES}} {value}")  # a terminal breaks long lines; what is copied stays whole


@app.command("parity")
def parity_command(
    backends: Annotated[str, typer.Option(help="all, or names with commas between.")] = "all",
    suite: Annotated[
        Suite | None,
        typer.Option(help="quick, or full: 200 steps of training. [default: quick; with --results, that of the first]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: parity-SUITE; with --results, parity-results]")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Compare what an earlier run wrote into this folder, and run nothing; may be repeated."),
    ] = None,
    checks: Annotated[str | None, typer.Option(help="Names of checks with commas between. [default: all]")] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let a GPU round float32 products to TF32.")] = False,
) -> None:
    """Run the same checks on every backend and compare the numbers.

    Each installed backend runs in a process of its own. Exit status 1 if something differs by more than its tolerance
    allows, or a backend does not run.
    """
    console = wide_console()
    names = None if checks is None else _names(checks)
    if results:
        if backends != "all" or tf32:
            raise UsersMistake("--results runs nothing, so --backends and --tf32 do not go with it.")
        folder = out or Path("parity-results")
        report = parity.compare_results(results, folder, suite and suite.value, names)
    else:
        chosen = None if backends == "all" else _names(backends)
        suite = suite or Suite.quick
        folder = out or Path(f"parity-{suite.value}")
        with _checking(), ParityProgress(console) as progress:
            report = parity.run_suite(folder, chosen, suite.value, names, tf32, progress.show)
    console.print(report.table())
    for line in report.failures():
        console.print(line, soft_wrap=True)
    console.print(f"{report.headline()}\n{folder}{os.sep}: parity.html, parity.json", soft_wrap=True)
    if not report.passed:
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsersMistake(f"There must be names, with commas between. Received: {text!r}")
    return names


def _draw_augmentation(images: datasets.ImageDataset, recipe: training.Recipe, run: Path | None) -> Path:
    """A sheet of the first training images as the augmentation shows them, at full strength; the file."""
    from keras_vit_edu import plots

    if recipe.augmentation is None:
        raise ValueError(f"The recipe {recipe.name} has no augmentation to show; --augmentation gives it one.")
    count, epochs = 10, 9
    originals, labels = images.x_train[:count], images.y_train[:count]
    rows = np.eye(len(images.class_names), dtype="float32")[labels]
    varied = np.stack(
        [recipe.augmentation(originals, rows, recipe.seed, epoch, 0)[0] for epoch in range(epochs)], axis=1
    )
    file = (run or Path()) / AUGMENTATION
    file.parent.mkdir(parents=True, exist_ok=True)
    plots.augmentation(originals, varied, [images.class_names[label] for label in labels], file)
    return file


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`["head=mean", "head_units=[64]"]` to `{"head": "mean", "head_units": [64]}`; what is no JSON is a string."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"`--override` takes NAME=VALUE. Received: {text!r}")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def _check_fit(model: Any, images: datasets.ImageDataset) -> None:
    image_shape = images.x_train.shape[1:]
    if tuple(model.input_shape[1:]) != image_shape or model.num_classes != len(images.class_names):
        raise ValueError(
            f"{model.name} takes images of shape {tuple(model.input_shape[1:])} and tells {model.num_classes} classes "
            f"apart; {images.name} has images of shape {image_shape} of {len(images.class_names)} classes."
        )
