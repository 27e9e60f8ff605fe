"""`keras-vit-edu doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.options import BackendOption

if not _backend.ONLY_HELP:
    from keras_vit_edu._printing import print_json

DOCTOR_NAMES = 19  # columns


def doctor(
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    backend: BackendOption = None,
) -> None:
    """Show versions, device, precision, threads, extras and data."""
    from keras_vit_edu.doctor import examine

    findings = examine()
    if json_only:
        print_json(findings)
        return
    for section, entries in findings.items():
        print(section)
        for name, value in entries.items():
            print(f"  {name:{DOCTOR_NAMES}} {value}")  # the terminal breaks long lines, so a copy of them stays whole
