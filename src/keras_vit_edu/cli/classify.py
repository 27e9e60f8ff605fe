"""`keras-vit-edu classify`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import checking, complain
from keras_vit_edu.cli.options import BackendOption, FallbackOption

if not _backend.ONLY_HELP:
    from keras_vit_edu._files import check_writable, printable
    from keras_vit_edu._printing import Console, print_json
    from keras_vit_edu.classify_files import (
        PICTURED,
        DigitSheet,
        PhotographSheet,
        check_reads_digits,
        classify_digits,
        classify_photographs,
    )
    from keras_vit_edu.classify_report import Classified, as_json, as_line, write_csv
    from keras_vit_edu.load_classifier import is_of_photographs, load_classifier
    from keras_vit_edu.transfer import hub
    from keras_vit_edu.transfer.photographs import image_files

DIGIT_READER = "vit_mnist_hybrid"  # the default preset
HINT = "for a photograph choose another --preset; --no-check accepts it as a digit"


def classify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures of one digit each, or photographs; see --preset.")
    ],
    preset: Annotated[
        str,
        typer.Option(
            help="For digits: a preset with weights, its folder, or a run folder. For photographs: a preset of "
            "keras_hub (listed by presets --hub), or a saved TransferClassifier."
        ),
    ] = DIGIT_READER,
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of classes to print. [default: 3; photographs: 5]")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest probability; below it the class is unknown.", show_default=False)
    ] = 0.0,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse pictures that do not look like a digit.")
    ] = True,
    fallback: FallbackOption = False,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file to draw: the picture, what the model saw, the probabilities.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="CSV file to write, with a row for each file.")] = None,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    backend: BackendOption = None,
) -> None:
    """Classify pictures of digits, or photographs.

    A digit may be on paper or on a screen, dark or light, anywhere in the picture.

    A folder stands for every file in it. If a file shows no digit or is no picture, the command reports it, classifies
    the others, and exits with status 1. `predict` is the same command.
    """
    with checking():
        _check_outputs(threshold, picture, table)
        paths, without = _files_in(files)
        sheet: Any = None
        if fallback and not is_of_photographs(preset):
            raise ValueError(f"--fallback works only with a preset of keras_hub. Received: --preset {preset}")
        loaded = load_classifier(preset, hub.COURSES_FALLBACK if fallback else None)
        if loaded.photographs is not None:
            sheet = PhotographSheet(loaded.photographs) if picture else None
            results = classify_photographs(paths, loaded.photographs, top, sheet)
        else:
            check_reads_digits(preset, loaded)
            sheet = DigitSheet() if picture else None
            results = classify_digits(paths, loaded.model, top, check, sheet, HINT)
    console = Console(quiet=json_only, soft_wrap=True)
    several: list[Classified] = []
    _backend.announce()
    results = itertools.chain(without, results)
    try:
        # Pillow is missing; images of several sizes for a model that does not resize them; weights that give NaN.
        with checking(only_ours=True):
            for found in results:
                several.append(found)
                if found.error:
                    complain(printable(f"{found.file}: {found.error}"), 1)
                else:
                    console.print(as_line(found, threshold))
    finally:  # keeps the results after an interruption
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


def _files_in(given: Sequence[Path]) -> tuple[list[Any], list[Classified]]:
    """The files to classify, those of folders included; and an error for each empty folder among several arguments."""
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
    """Check, before the work begins, that the outputs can be written."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"`--threshold` must be a probability from 0 to 1. Received: {threshold}")
    for option, file, ending in (("--picture", picture, "PNG"), ("--csv", table, "CSV")):
        if file is not None and (file.suffix.lower() != f".{ending.lower()}" or file.is_dir()):
            raise ValueError(f"`{option}` must name a {ending} file. Received: {file}")
        if file is not None:
            check_writable(file)
    if picture is not None:
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is reported before the work begins)
