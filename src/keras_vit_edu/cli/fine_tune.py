"""`keras-vit-edu fine-tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import checking
from keras_vit_edu.cli.options import (
    BackendOption,
    FallbackOption,
    JitCompileOption,
    OverwriteOption,
    QuietOption,
    SeedOption,
)

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
        Path | None, typer.Option(help="Folder or CSV of photographs for validation. [default: a share of PHOTOS]")
    ] = None,
    options: Annotated[Path | None, typer.Option(help="JSON file with options; the options below change it.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="probe (head only), lp-ft (probe, then all), lora, full (all at once). [default: lp-ft]"),
    ] = None,
    probe_epochs: Annotated[int | None, typer.Option(help="Epochs of the probe. [default: 20]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the tuning. [default: 10]")] = None,
    probe_learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate of the probe. [default: 0.01]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate of the tuning. [default: 1e-4; lora: 1e-3]")
    ] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Factor of the learning rate per layer downwards. [default: 0.75]")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Number of last blocks to tune. [default: the whole model]")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decoupled weight decay. [default: 0.05]")] = None,
    rank: Annotated[int | None, typer.Option(help="LoRA rank. [default: 8]")] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="photographs, none, digits or clothes. [default: photographs]")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Label smoothing, 0 to 1. [default: 0]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step. [default: 32]")] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="Share of every class for validation, 0 to 1. [default: 0.2]")
    ] = None,
    balance: Annotated[
        bool,
        typer.Option("--balance/--no-balance", help="Give all classes the same weight."),
    ] = True,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images, in pixels. [default: the preset's]")
    ] = None,
    seed: SeedOption = None,
    fallback: FallbackOption = False,
    cache: Annotated[Path | None, typer.Option(help="Folder for computed features.")] = None,
    backend: BackendOption = None,
    overwrite: OverwriteOption = False,
    jit_compile: JitCompileOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fine-tune a pretrained model on a folder of photographs.

    The result is RUN/classifier. If interrupted, run the command again to resume.
    """
    console = Console(quiet=quiet, soft_wrap=True)
    with checking():
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
        preset = located(preset)
        refuse_run(preset)
        photographs, validation = parts_of_split(photographs, validation, console)
        images = _scanned(photographs, console)
        held = None if validation is None else _scanned(validation, console)
        set_seed(settings.seed)
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
