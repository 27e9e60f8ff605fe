"""`run.json`: what a run folder says about itself, read and checked, whoever wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_vit_edu import _checks, _files
from keras_vit_edu.training.checkpoint import RunFolderError

RECORD = "run.json"
# What is read again, where it is there.
KINDS: dict[str, tuple[type, str]] = {
    "status": (str, "a text"),
    "configuration": (dict, "an object"),
    "sessions": (list, "a list"),
    "source": (str, "a text"),
}


def read_record(run: Path) -> dict[str, Any]:
    """What `run.json` says.

    Args:
        run: the folder.

    Raises:
        RunFolderError: a `ValueError`, if it is no JSON, or an entry is of another kind than this library writes.
    """
    try:
        record = _files.read_json(run / RECORD)
        if not isinstance(record, dict):
            raise ValueError("it holds no object")
        for name, (kind, wanted) in KINDS.items():
            if name in record and not isinstance(record[name], kind):
                raise ValueError(f"`{name}` is not {wanted}")
    except ValueError as error:
        raise _damaged(run, error) from None
    return record


def dataset_of(record: Mapping[str, Any], run: Path) -> tuple[dict[str, Any], str]:
    """What a run of `train` learned from: its fingerprint, with a name and a SHA-256, and where it was.

    Raises:
        RunFolderError: a `ValueError`, if it does not say so.
    """
    dataset, source = record.get("configuration", {}).get("dataset"), record.get("source")
    if not isinstance(dataset, dict) or not isinstance(dataset.get("name"), str) or not isinstance(source, str):
        raise _damaged(run, "`configuration.dataset` and `source` do not say which images it learned from")
    return dataset, source


def class_names_of(record: Mapping[str, Any], run: Path) -> tuple[str, ...]:
    """What the classes of a run are called.

    Raises:
        RunFolderError: a `ValueError`, if it does not say so.
    """
    try:
        return _checks.class_names(record.get("class_names"))
    except ValueError as error:
        raise _damaged(run, error) from None


def _damaged(run: Path, reason: Any) -> RunFolderError:
    return RunFolderError(f"{run / RECORD} is damaged ({reason}).")
