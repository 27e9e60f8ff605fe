"""Read `run.json`, the record of a run, and check it. Anyone may have edited it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_vit_edu import _checks, _files
from keras_vit_edu.training.checkpoint import RunFolderError

RECORD = "run.json"
# The entries that are read, if they are present.
KINDS: dict[str, tuple[type, str]] = {
    "status": (str, "a text"),
    "configuration": (dict, "an object"),
    "sessions": (list, "a list"),
    "source": (str, "a text"),
}


def read_record(run: Path) -> dict[str, Any]:
    """Read `run.json`.

    Args:
        run: folder of the run.

    Raises:
        RunFolderError: a `ValueError`, if it is not JSON, or if an entry has a wrong type.
    """
    try:
        record = _files.read_json(run / RECORD)
        if not isinstance(record, dict):
            raise ValueError("it is not a JSON object")
        for name, (kind, wanted) in KINDS.items():
            if name in record and not isinstance(record[name], kind):
                raise ValueError(f"`{name}` is not {wanted}")
    except ValueError as error:
        raise _damaged(run, error) from None
    return record


def dataset_of(record: Mapping[str, Any], run: Path) -> tuple[dict[str, Any], str]:
    """The dataset of a run of `train`: its fingerprint (name and SHA-256), and its source.

    Raises:
        RunFolderError: a `ValueError`, if the record lacks them.
    """
    dataset, source = record.get("configuration", {}).get("dataset"), record.get("source")
    if not isinstance(dataset, dict) or not isinstance(dataset.get("name"), str) or not isinstance(source, str):
        raise _damaged(run, "`configuration.dataset` and `source` do not name the training images")
    return dataset, source


def class_names_of(record: Mapping[str, Any], run: Path) -> tuple[str, ...]:
    """The class names of a run.

    Raises:
        RunFolderError: a `ValueError`, if the record lacks them.
    """
    try:
        return _checks.class_names(record.get("class_names"))
    except ValueError as error:
        raise _damaged(run, error) from None


def _damaged(run: Path, reason: Any) -> RunFolderError:
    return RunFolderError(f"{run / RECORD} is damaged ({reason}).")
