"""The folder that a run writes into, and what `run.json` says about the machine."""

import csv
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

# What a run may leave in its folder. `overwrite` removes these and nothing else.
FILES = (
    "run.json", "history.csv", "accuracy.png", "loss.png", "summary.txt", "model.png", "model.keras",
)  # fmt: skip


class RunFolder:
    """A new folder for one run.

    `run.json` is there from the first moment, with `"status": "running"`; only a run that came to its end says
    `"finished"`.

    Args:
        path: where; parents are created.
        overwrite: remove the run that is there.

    Raises:
        ValueError: if there is something at `path` (or, with `overwrite`, something that is no run), or it cannot be
            written.
    """

    def __init__(self, path: str | Path, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = {}
        try:
            self._make(overwrite)
        except OSError as error:
            raise ValueError(f"The run folder {self.path} cannot be written: {error.strerror or error}") from None

    def _make(self, overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"The run folder {self.path} is a file.")
        if self.path.is_dir() and any(self.path.iterdir()):
            if not (self / "run.json").is_file():
                raise ValueError(f"{self.path} exists and holds something other than a run; name another --run.")
            if not overwrite:
                raise ValueError(f"{self.path} holds a run already; name another --run, or give --overwrite.")
            for name in FILES:
                (self / name).unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        probe = self / ".probe"
        probe.write_bytes(b"")
        probe.unlink()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    def update(self, **entries: Any) -> None:
        """Add entries to `run.json`, which is replaced in one step: never half-written."""
        self.record.update(entries)
        aside = self / "run.json.new"
        aside.write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")
        os.replace(aside, self / "run.json")

    def write_history(self, history: Mapping[str, Sequence[float]]) -> None:
        """Write `history.csv`: a row per epoch, counted from 1."""
        with open(self / "history.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", *history])
            for epoch, row in enumerate(zip(*history.values(), strict=True), start=1):
                writer.writerow([epoch, *row])

    def files(self) -> list[Path]:
        """What the run has written so far."""
        return [self / name for name in FILES if (self / name).is_file()]


def environment() -> dict[str, Any]:
    """Which versions and which device a run ran on."""
    backend = keras.backend.backend()
    packages = ("keras-vit-edu", "keras", "numpy", backend)
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "backend": backend,
        "device": device(),
        "command": _command(),
        "cpu_count": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # TensorFlow has builds under other names
        return None


def _command() -> list[str]:
    program = Path(sys.argv[0]).name
    return ["keras-vit-edu" if program == "__main__.py" else program, *sys.argv[1:]]


def device() -> str:
    """The name of the device that Keras computes on, such as `"cpu"` or `"cuda:0 NVIDIA H100"`."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return f"cuda:0 {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cpu"
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return "cpu" if first.platform == "cpu" else f"{first.platform}:{first.id} {first.device_kind}"
    import tensorflow as tf

    graphics = tf.config.list_physical_devices("GPU")
    if not graphics:
        return "cpu"
    return f"cuda:0 {tf.config.experimental.get_device_details(graphics[0]).get('device_name', 'GPU')}"


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
