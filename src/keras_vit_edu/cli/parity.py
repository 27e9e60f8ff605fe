"""`keras-vit-edu parity`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import UsersMistake, checking

if not _backend.ONLY_HELP:
    from keras_vit_edu import parity
    from keras_vit_edu._tables import wide_console
    from keras_vit_edu.parity.progress import ParityProgress


class Suite(StrEnum):
    """Values of `--suite`."""

    quick = "quick"
    full = "full"


def parity_command(
    backends: Annotated[str, typer.Option(help="all, or names separated by commas.")] = "all",
    suite: Annotated[
        Suite | None,
        typer.Option(help="quick, or full (200 training steps). [default: quick; with --results, the first one's]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into. [default: parity-SUITE; with --results, parity-results]")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of earlier results to compare, without a new run; may be repeated."),
    ] = None,
    checks: Annotated[str | None, typer.Option(help="Names of checks, separated by commas. [default: all]")] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let a GPU round float32 products to TF32.")] = False,
) -> None:
    """Run the same checks on every backend and compare the numbers.

    Each installed backend runs in its own process. The exit status is 1 if a difference is above its tolerance or a
    backend does not run.
    """
    console = wide_console()
    names = None if checks is None else _names(checks)
    if results:
        if backends != "all" or tf32:
            raise UsersMistake("--results compares earlier results and runs nothing. Leave out --backends and --tf32.")
        folder = out or Path("parity-results")
        report = parity.compare_results(results, folder, suite and suite.value, names)
    else:
        chosen = None if backends == "all" else _names(backends)
        suite = suite or Suite.quick
        folder = out or Path(f"parity-{suite.value}")
        with checking(), ParityProgress(console) as progress:
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
        raise UsersMistake(f"Expected names, separated by commas. Received: {text!r}")
    return names
