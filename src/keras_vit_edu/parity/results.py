"""The measurements of each backend, in the folder of a parity run."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_vit_edu import _files
from keras_vit_edu.parity.arrays import read
from keras_vit_edu.parity.checks import Measurement

FORMAT_VERSION = 1
RESULTS = "results.json"


@dataclass
class Results:
    """The measurements of one backend.

    Attributes:
        backend: its name.
        folder: with an npz file a check, and `results.json`.
        suite: `"quick"`, `"full"`, or `"own"` for a user's own code.
        version: of keras_vit_edu.
        tf32: whether TF32 was left on.
        environment: versions and device.
        checks: by name: `error`, a line or None; `excused`, whether the error is that it cannot run here; `seconds`.
        broken: why the backend did not come to its end; None if it did.
        label: what the report calls it; the backend's name unless another is given.
    """

    backend: str
    folder: Path
    suite: str
    version: str
    tf32: bool = False
    environment: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        self.label = self.label or self.backend

    def measurements(self, check: str) -> list[Measurement]:
        """The measurements of a check, in their order.

        Raises:
            ResultsError: if its file is damaged, or gone, as those of a user's own code are after the comparison.
        """
        file = self.folder / f"{check}.npz"
        if not self.folder.is_dir():
            raise ResultsError(f"The arrays are not kept: {self.folder} was there for the comparison only.")
        try:
            return read(file)
        except Exception as error:  # a damaged archive raises anything
            raise ResultsError(f"{file} is damaged: {error!r}") from None

    def save(self) -> None:
        """Write `results.json`."""
        content = {name: value for name, value in vars(self).items() if name not in ("folder", "label")}
        text = json.dumps({"format_version": FORMAT_VERSION, **content}, indent=2)
        (self.folder / RESULTS).write_text(text + "\n", encoding="utf-8")


class ResultsError(ValueError):
    """A folder of results cannot be used. The message is for the user who named it."""


def load_results(folder: Path, version: str, suite: str | None) -> list[Results]:
    """The results of every backend that a run left in `folder`.

    Args:
        folder: what a run was given as `--out`.
        version: of keras_vit_edu; results of another are refused.
        suite: results of another are refused; None for any.

    Raises:
        ResultsError: if there are none, or they are damaged, or of another version, format or suite.
    """
    files = sorted(folder.glob(f"*/{RESULTS}"))
    if not files:
        raise ResultsError(f"{folder} holds no results of a parity run.")
    return [_load(file, version, suite) for file in files]


def _load(file: Path, version: str, suite: str | None) -> Results:
    try:
        content = _files.read_json(file)
        format_version = content.pop("format_version")
        if format_version != FORMAT_VERSION:
            raise ResultsError(f"{file} has format {format_version}; this version reads format {FORMAT_VERSION}.")
        found = Results(folder=file.parent, **content)
        _check_types(found)
    except ResultsError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{file} is damaged: {error!r}") from None
    if found.version != version:
        raise ResultsError(f"{file} was made by keras_vit_edu {found.version}; this is {version}.")
    if suite is not None and found.suite != suite:
        raise ResultsError(f"{file} is of the suite {found.suite!r}, not {suite!r}.")
    return found


def _check_types(found: Results) -> None:
    for name, kind in (("backend", str), ("suite", str), ("version", str), ("tf32", bool), ("environment", dict),
                       ("checks", dict), ("broken", str | None)):  # fmt: skip
        if not isinstance(getattr(found, name), kind):
            raise TypeError(f"{name} is {getattr(found, name)!r}")
    versions, device = found.environment.get("versions", {}), found.environment.get("device", "")
    if not isinstance(versions, dict) or not isinstance(device, str):
        raise TypeError(f"environment is {found.environment!r}")
    for name, outcome in found.checks.items():
        if not isinstance(outcome["error"], str | None) or not isinstance(outcome["excused"], bool):
            raise TypeError(f"the outcome of {name} is {outcome!r}")


def is_ours(folder: Path) -> bool:
    """Whether a folder holds one backend's results, or an unfinished part of them from a killed run."""
    try:
        job = _files.read_json(folder / "job.json")
    except ValueError:
        return False
    return isinstance(job, dict) and {"folder", "suite", "checks", "own_code"} <= job.keys()
