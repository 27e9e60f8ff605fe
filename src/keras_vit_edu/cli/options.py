"""What several commands have in common: the values and the help texts of their options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Backend(StrEnum):
    """What `--backend` takes."""

    tensorflow = "tensorflow"
    jax = "jax"
    torch = "torch"


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
