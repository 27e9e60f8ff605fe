"""`keras-vit-edu fine-tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import checking
from keras_vit_edu.cli.options import (
    BackendOption,
    FallbackOption,
    JitCompileOption,
    OverwriteOption,
    QuietOption,
)
from keras_vit_edu.cli.settings_options import with_options_of
from keras_vit_edu.transfer.fine_tuning_options import FineTuning

if not _backend.ONLY_HELP:
    import numpy as np

    from keras_vit_edu import datasets, training, transfer
    from keras_vit_edu._files import printable
    from keras_vit_edu._printing import Console
    from keras_vit_edu.cli.progress_bar import progress_bar
    from keras_vit_edu.datasets.image_csv import scan_images
    from keras_vit_edu.load_classifier import located, refuse_run
    from keras_vit_edu.models.preset_files import read_json
    from keras_vit_edu.random import set_seed
    from keras_vit_edu.transfer import hub
    from keras_vit_edu.transfer.split_images import parts_of_split


@with_options_of(FineTuning)
def fine_tune(
    photographs: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder with one subfolder per class; a folder with such folders train/, val/ and test/; or a CSV "
            "of paths and labels.",
        ),
    ],
    preset: Annotated[str, typer.Option(help="Pretrained model of keras_hub: a name, a handle or a folder.")],
    run: Annotated[Path, typer.Option(help="Folder to write into.")],
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Folder or CSV of photographs for validation. [default: a share of PHOTOS]",
            rich_help_panel="Model and images",
        ),
    ] = None,
    options: Annotated[Path | None, typer.Option(help="JSON file with the defaults of the options below.")] = None,
    balance: Annotated[
        bool,
        typer.Option(
            "--balance/--no-balance", help="Give all classes the same weight.", rich_help_panel="Model and images"
        ),
    ] = True,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side of the images, in pixels. [default: the preset's]", rich_help_panel="Model and images"),
    ] = None,
    fallback: FallbackOption = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for computed features.", rich_help_panel="Run")] = None,
    backend: BackendOption = None,
    overwrite: OverwriteOption = False,
    jit_compile: JitCompileOption = None,
    quiet: QuietOption = False,
    **settings: Any,
) -> None:
    """Fine-tune a pretrained model on a folder of photographs.

    The result is RUN/classifier. If interrupted, run the command again to resume.
    """
    console = Console(quiet=quiet, soft_wrap=True)
    with checking():
        tuning = transfer.FineTuning.from_json({} if options is None else read_json(options)).replace(**settings)
        preset = located(preset)
        refuse_run(preset)
        photographs, validation = parts_of_split(photographs, validation, console)
        images = _scanned(photographs, console)
        held = None if validation is None else _scanned(validation, console)
        set_seed(tuning.seed)
        classifier = transfer.TransferClassifier.from_preset(
            preset, images.class_names, image_size, fallback=hub.COURSES_FALLBACK if fallback else None
        )
        folder = training.RunFolder(run, overwrite=overwrite)
    if not quiet:
        _backend.announce()
    with folder, checking(only_ours=True):
        record = classifier.fit(
            images,
            held,
            tuning,
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
    """The images of a folder. Prints the number of images per class, and the skipped files."""
    with progress_bar(f"looking at {folder}") as progress:
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
