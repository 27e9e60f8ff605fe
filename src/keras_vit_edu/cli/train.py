"""`keras-vit-edu train`. Its options for training are the fields of `training.Recipe`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import UsersMistake, checking
from keras_vit_edu.cli.options import BackendOption, JitCompileOption, OverwriteOption, QuietOption
from keras_vit_edu.cli.settings_options import with_options_of
from keras_vit_edu.training.recipe import Recipe

if not _backend.ONLY_HELP:
    import keras

    from keras_vit_edu import datasets, training
    from keras_vit_edu._files import printable
    from keras_vit_edu._printing import Console
    from keras_vit_edu.cli.data import image_size_of
    from keras_vit_edu.cli.progress_bar import progress_bar
    from keras_vit_edu.models import overrides_for_images
    from keras_vit_edu.models.fit_to_images import NoFit
    from keras_vit_edu.models.preset import Preset
    from keras_vit_edu.random import set_seed
    from keras_vit_edu.training.run_images import SAMPLE


@with_options_of(Recipe, show_defaults=False)
def train(
    preset: Annotated[
        str, typer.Option(help="Name or folder of a preset; its weights are not used.")
    ] = "vit_mnist_program_p",
    override: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Change an argument of the model, such as head=mean; may be repeated.",
            rich_help_panel="Model and images",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="mnist-sample (bundled, the default), mnist, fashion-mnist, emnist-letters, ..."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images of any size: an npz file, a folder with one subfolder per class, MNIST's files, a CSV file."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Scale and crop every image to this size, in pixels. [default: unchanged]",
            rich_help_panel="Model and images",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Name of a recipe, or a JSON file, with the defaults of the options below. [default: program-p; "
            "on mnist-sample program-p-sample]"
        ),
    ] = None,
    backend: BackendOption = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: runs/PRESET-DATASET-BACKEND-SEED]")
    ] = None,
    overwrite: OverwriteOption = False,
    jit_compile: JitCompileOption = None,
    show_augmentation: Annotated[
        bool,
        typer.Option(
            "--show-augmentation",
            help="Draw examples of the augmentation; train nothing.",
            rich_help_panel="Augmentation",
        ),
    ] = False,
    quiet: QuietOption = False,
    **settings: Any,
) -> None:
    """Train a Vision Transformer from scratch, then test it.

    If interrupted, run the command again to resume.
    """
    console = Console(quiet=quiet, soft_wrap=True)
    size = image_size_of(image_size)
    with checking():
        usual = training.recipe_for(dataset or (SAMPLE if data is None else data.name))
        chosen = (usual if recipe is None else training.load_recipe(recipe)).replace(**settings)
        weakening, strength = settings["augmentation_final_epochs"], settings["augmentation_final_strength"]
        if chosen.augmentation is None and (weakening or strength):
            raise ValueError("`--augmentation-final-*` requires `--augmentation`.")
        if strength is not None and not chosen.augmentation_final_epochs:
            raise ValueError("`--augmentation-final-strength` requires `--augmentation-final-epochs`.")
        begun = run or training.default_run(preset, "mnist", chosen.seed)
        with progress_bar("looking at the files") as progress:
            images = training.images_to_train_on(begun, dataset, data, size, progress)
        missing = datasets.classes_without_validation(images, chosen.validation_split)
        notes = [*images.notes, *([_without_validation(missing)] if missing else [])]
        if show_augmentation:
            console.print(str(training.draw_augmentation(images, chosen, run or Path())))
            return
        given = _overrides(override or ())
        try:
            arguments = overrides_for_images(preset, images.x_train.shape[1:], len(images.class_names), given)
        except NoFit as error:
            raise UsersMistake(f"{error} (--override NAME=VALUE; --image-size N)") from None
        adapted = [f"{name}={json.dumps(value)}" for name, value in arguments.items() if name not in given]
        set_seed(chosen.seed)
        model: Any = Preset.from_preset(preset, load_weights=False, **arguments)
        _check_fit(model, images)
        chosen.exempt_from_decay(model)  # raises an error for a part of a path that no variable has
        run = run or training.default_run(preset, images.name, chosen.seed)
        folder = training.RunFolder(run, overwrite=overwrite)

    if not quiet:
        _backend.announce()
    for note in notes:
        console.print(f"note: {note}")
    if adapted:
        console.print(f"{model.name} is adapted to the images: {', '.join(adapted)}")
    console.print(
        f"{model.name}, {model.count_params():,} parameters, on {keras.backend.backend()} ({training.device()}), "
        f"seed {chosen.seed}\n"
        f"{printable(images.name)} from {printable(images.source)}: {len(images.x_train):,} training images, "
        f"the last {chosen.validation_split:.0%} of them for validation; {len(images.x_test):,} test images\n"
        f"recipe {chosen.name}, {chosen.epochs} epochs, into {folder}"
    )
    with folder:
        record = training.train(model, images, folder, chosen, console=console, jit_compile=jit_compile)
    console.print(
        f"test accuracy {record['test_accuracy']:.4f}, loss {record['test_loss']:.4f}, "
        f"{record['timings']['training_seconds']:.0f} s of training\n"
        f"{folder}{os.sep}: {', '.join(file.name for file in folder.files())}"
    )


def _without_validation(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"validation has no image of class {', '.join(map(printable, missing[:5]))}{more}"


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`["head=mean", "head_units=[64]"]` to `{"head": "mean", "head_units": [64]}`; what is not JSON is a string."""
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
            f"{model.name} takes images of shape {tuple(model.input_shape[1:])} and has {model.num_classes} classes. "
            f"{images.name} has images of shape {image_shape} and {len(images.class_names)} classes."
        )
