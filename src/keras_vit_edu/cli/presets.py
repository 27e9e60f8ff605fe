"""`keras-vit-edu presets`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from keras_vit_edu import _backend
from keras_vit_edu.cli.mistakes import checking
from keras_vit_edu.cli.options import BackendOption

if not _backend.ONLY_HELP:
    from keras_vit_edu import transfer
    from keras_vit_edu._printing import print_json
    from keras_vit_edu._tables import folding_table, wide_console
    from keras_vit_edu.models.preset import Preset

PRESETS_COLUMNS, HUB_COLUMNS = 110, 120  # widths of the complete tables


def presets(
    of_hub: Annotated[bool, typer.Option("--hub", help="List the presets of keras_hub, for photographs.")] = False,
    json_only: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    backend: BackendOption = None,
) -> None:
    """List the presets: description, size and accuracy."""
    if of_hub:
        _list_presets_of_hub(json_only)
        return
    known = ("description", "parameters", "test_accuracy", "test_standard_error", "test_images", "weights_dtype")
    rows = [
        {
            "name": name,
            **{key: metadata.get(key) for key in known},
            "dataset": metadata.get("dataset", {}).get("name"),
            "weights_bytes": metadata.get("weights_bytes") if metadata["weights_sha256"] else None,
        }
        for name, metadata in Preset.presets.items()
    ]
    if json_only:
        print_json(rows)
        return
    console = wide_console()
    is_narrow = console.width < PRESETS_COLUMNS
    lines = []
    for row in rows:
        accuracy = "-"
        weights = "no weights"
        if row["weights_bytes"]:
            accuracy = f"{row['test_accuracy']:.2%} ± {row['test_standard_error'] * 100:.2f}"
            accuracy += f"{chr(10) if is_narrow else ' '}({row['dataset']})"
            weights = f"{row['weights_bytes'] / 1e6:.2f} MB {row['weights_dtype']}"
        lines.append([row["name"], row["description"], f"{row['parameters']:,}", accuracy, weights])
    columns = ["name", "description", "parameters", "test accuracy", "weights"]
    if is_narrow:  # a row without an accuracy has no weights
        columns, lines = columns[:4], [line[:4] for line in lines]
    console.print(folding_table(columns, lines, console.width, whole=("name", "parameters", "test accuracy")))


def _list_presets_of_hub(json_only: bool) -> None:
    with checking():
        rows = transfer.list_presets()
    if json_only:
        print_json([{**dataclasses.asdict(row), "note": row.note} for row in rows])
        return
    console = wide_console()
    columns = ["name", "family", "image", "parameters", "classes", "here"]
    lines = [
        [row.name, row.family, str(row.image_size or "-"), f"{row.parameters:,}", str(row.classes or "-"), row.note]
        for row in rows
    ]
    if console.width < HUB_COLUMNS:  # the name says family and size too
        columns = ["name", "parameters", "here"]
        lines = [[name, parameters, note] for name, _, _, parameters, _, note in lines]
    console.print(folding_table(columns, lines, console.width, whole=("name", "parameters")))
