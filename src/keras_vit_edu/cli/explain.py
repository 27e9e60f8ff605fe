"""`keras-vit-edu explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import checking, complain
from keras_vit_edu.cli.options import BackendOption, FallbackOption

if not _backend.ONLY_HELP:
    from keras_vit_edu._files import printable
    from keras_vit_edu._printing import Console
    from keras_vit_edu.cli.progress_bar import progress_bar
    from keras_vit_edu.explain_files import DEFAULT_METHODS, explain_files
    from keras_vit_edu.load_classifier import is_of_photographs, load_classifier
    from keras_vit_edu.transfer import hub

MODEL = "vit_mnist_pure"  # the default


def explain(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures of one digit each, or photographs; see --model.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="For digits: a preset with weights, its folder, or a run folder. For photographs: a ViT or DeiT of "
            "keras_hub, or a saved TransferClassifier."
        ),
    ] = MODEL,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="attention, rollout, relevance, grad_cam, integrated_gradients or occlusion; may be given several "
            "times. [default: rollout, relevance, occlusion]"
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class to explain, by name or number. [default: the predicted one]")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Class to compare with: why the target and not this one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and arrays.")] = Path("explanation"),
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse pictures that do not look like a digit.")
    ] = True,
    fallback: FallbackOption = False,
    backend: BackendOption = None,
) -> None:
    """Show where a model looks in pictures.

    Writes maps.png (the maps of all methods), heads-NN.png (each head of each block), distances.png, positions.png and
    explanation.npz. If a file cannot be read, the command reports it, explains the others, and exits with status 1.
    """
    with checking():
        from keras_vit_edu import plots  # noqa: F401  (a missing matplotlib is reported before the work begins)

        if fallback and not is_of_photographs(model):
            raise ValueError(f"--fallback works only with a preset of keras_hub. Received: --model {model}")
        loaded = load_classifier(model, hub.COURSES_FALLBACK if fallback else None)
    _backend.announce()
    with checking(only_ours=True), progress_bar("explaining") as progress:
        found = explain_files(loaded, files, out, method or DEFAULT_METHODS, target, against, check, progress)
    console = Console(soft_wrap=True)
    for file, (name, share) in zip(found.files, found.answers, strict=True):
        console.print(f"{printable(str(file))}: {name} ({share:.1%})")
    console.print(f"{out}{os.sep}: {', '.join(file.name for file in found.written)}")
    for file, reason in found.skipped:
        complain(printable(f"{file}: {reason}"), 1)
    if found.skipped:
        raise typer.Exit(1)
