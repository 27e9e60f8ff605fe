"""`keras-vit-edu evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import checking, complain
from keras_vit_edu.cli.options import BackendOption

if not _backend.ONLY_HELP:
    from rich.table import Table

    from keras_vit_edu import datasets, training
    from keras_vit_edu._files import check_writable, printable
    from keras_vit_edu._printing import Console, print_json
    from keras_vit_edu.cli.data import sides
    from keras_vit_edu.cli.progress_bar import progress_bar
    from keras_vit_edu.datasets.image_csv import scan_images
    from keras_vit_edu.datasets.thumbnail import thumbnail
    from keras_vit_edu.evaluation import CONFUSED
    from keras_vit_edu.load_classifier import (
        evaluation_folder,
        is_of_photographs,
        load_classifier,
        located,
        refuse_run,
    )
    from keras_vit_edu.transfer.artifact_files import is_artifact


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_PRESET",
            help="A run folder or a preset with weights; with PHOTOS, a saved TransferClassifier or a preset of "
            "keras_hub.",
        ),
    ],
    photos: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PHOTOS]",
            help="A folder of photographs with one subfolder per class, or a CSV of paths and labels.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset to test on. [default: the run's; else mnist-sample]")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Images to test on, as for `train`.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: the run's; else evaluate-PRESET-DATASET]")
    ] = None,
    most: Annotated[int, typer.Option("--mistakes", min=0, help="Number of mistakes to show.")] = 24,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    backend: BackendOption = None,
) -> None:
    """Test a trained classifier, class by class.

    Writes evaluate.json, confusion.png (how often each class is mistaken for another) and mistakes.png (the most
    confident mistakes).
    """
    named, model = model, located(model)
    if photos is not None or is_of_photographs(model):
        _evaluate_photographs(named, photos, dataset, data, out, most, json_only)
        return
    with checking():
        loaded = load_classifier(model)
        classifier, class_names = loaded.model, loaded.class_names
        run = None if loaded.dataset is None else Path(model)
        with progress_bar("looking at the files") as progress:
            images, is_own, are_all = training.images_to_test(run, dataset, data, sides(classifier), progress)
        dataset = images.name
        if class_names is not None and class_names != images.class_names:
            raise ValueError(
                f"{named} was trained on different classes than {dataset}. Choose the test images with --dataset. "
                f"Received: {', '.join(class_names[:3])}... and {', '.join(images.class_names[:3])}..."
            )
        folder = out or (Path(model) if is_own else evaluation_folder(named, dataset))
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is reported before the work begins)

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
    """Check the folder of the report before the long work."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must name a folder. Received: {folder}, a file")
    for name in ("evaluate.json", "confusion.png", "mistakes.png"):
        check_writable(folder / name)


def _by_class(found: training.Evaluation) -> Table:
    table = Table("class", "images", "precision", "recall", "F1")
    for row in found.per_class():
        shares = ("-" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        table.add_row(printable(row["class"]), str(row["images"]), *shares)
    return table


def _evaluate_photographs(
    named: str,
    photos: Path | None,
    dataset: str | None,
    data: Path | None,
    out: Path | None,
    most: int,
    json_only: bool,
) -> None:
    model = located(named)
    with checking():
        if photos is None:
            unknown = "" if is_artifact(model) else f"There is no run and no preset of this library {model!r}. "
            raise ValueError(
                f"{unknown}A classifier of photographs needs a folder of photographs: evaluate {model} PHOTOS"
            )
        if dataset is not None or data is not None:
            raise ValueError("Leave out --dataset and --data: PHOTOS has the images.")
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is reported before the work begins)

        refuse_run(model)
        classifier = load_classifier(model).photographs
        if classifier is None:
            raise ValueError(f"A preset of digits or clothes does not classify photographs. Received: {model}")
        with progress_bar("looking at the files") as progress:
            images = scan_images(photos, progress=progress)
        for file, reason in images.skipped:
            complain(f"{file}: {reason}", 0)
        folder = out or evaluation_folder(named, photos.resolve().name)
        _make_folder(folder)
    _backend.announce()
    with checking(only_ours=True), progress_bar("classifying") as progress:
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
