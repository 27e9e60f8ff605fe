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


RUN = "Run"  # heading of these options in the help of verbs whose options have headings

BackendOption = Annotated[Backend | None, typer.Option(help="Backend that Keras uses.", rich_help_panel=RUN)]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace a finished run, or a run with another configuration.", rich_help_panel=RUN
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show only errors.", rich_help_panel=RUN)]
JitCompileOption = Annotated[
    bool | None,
    typer.Option(
        "--jit-compile/--no-jit-compile",
        help="Compile the step with XLA or torch.compile. [default: Keras decides]",
        rich_help_panel=RUN,
    ),
]
FallbackOption = Annotated[
    bool,
    typer.Option("--fallback", help="If the preset is unavailable, use ViT-B/16 of ImageNet.", rich_help_panel=RUN),
]
