"""Options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Backend(StrEnum):
    """Values of `--backend`."""

    tensorflow = "tensorflow"
    jax = "jax"
    torch = "torch"


BackendOption = Annotated[Backend | None, typer.Option(help="Backend that Keras uses.")]
SeedOption = Annotated[int | None, typer.Option(help="Random seed; the same run on every backend.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run, or a run with another configuration.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show only errors.")]
JitCompileOption = Annotated[
    bool | None,
    typer.Option(
        "--jit-compile/--no-jit-compile", help="Compile the step with XLA or torch.compile. [default: Keras decides]"
    ),
]
FallbackOption = Annotated[
    bool,
    typer.Option("--fallback", help="If the preset is unavailable, use ViT-B/16 of ImageNet."),
]
