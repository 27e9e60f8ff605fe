"""Presets: a folder that holds a model's configuration, what is known about it, and its weights.

    config.json          the class and the arguments of its constructor
    metadata.json        what it is, what it was trained on, how well it does, the checksum of its weights
    weights.safetensors  float32 arrays by variable path; absent from a preset that is a configuration only
"""

import difflib
import hashlib
import json
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import safetensors.numpy

FORMAT_VERSION = 1
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "weights.safetensors"


class _Presets:
    """Read on the class: the metadata of every bundled preset of that class, by name."""

    def __get__(self, instance: Any, owner: type) -> dict[str, dict[str, Any]]:
        found = {}
        for folder in sorted(_bundled().iterdir(), key=lambda entry: entry.name):
            if (folder / CONFIG).is_file() and _read_json(folder / CONFIG)["class_name"] == owner.__name__:
                found[folder.name] = _read_json(folder / METADATA)
        return found


class Preset:
    """Gives a model class `from_preset`, `save_to_preset` and `presets`."""

    presets = _Presets()

    @classmethod
    def from_preset(cls, preset: str | Path, load_weights: bool = True, **overrides: Any) -> Self:
        """The model that a preset holds.

        Args:
            preset: the name of a bundled preset (`presets` lists them), or a folder that `save_to_preset` wrote.
            load_weights: False for random weights.
            **overrides: constructor arguments to use instead of the preset's, such as `dtype` or `dropout`.

        Returns:
            The model.

        Raises:
            ValueError: if there is no such preset, if it has no weights and they were not declined, if the weights do
                not fit or their checksum is wrong.

        >>> from keras_vit_edu.models import ViTClassifier
        >>> ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False).count_params()
        4544778
        """
        folder = cls._find(preset)
        config = _read_json(folder / CONFIG)
        if config.get("class_name") != cls.__name__:
            raise ValueError(f"{preset} is a preset of {config.get('class_name')}, not of {cls.__name__}.")
        metadata = _read_json(folder / METADATA)
        if metadata.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"This version of keras_vit_edu reads presets of format {FORMAT_VERSION}. "
                f"Received: {preset} of format {metadata.get('format_version')}"
            )
        if load_weights and not (folder / WEIGHTS).is_file():
            raise ValueError(
                f"The preset {preset} is a configuration without weights. "
                f"For random weights: {cls.__name__}.from_preset({str(preset)!r}, load_weights=False)"
            )
        model = cls(**{**config["config"], **overrides})
        if load_weights:
            _load_weights(model, folder, metadata)
        return model

    def save_to_preset(
        self, folder: str | Path, metadata: dict[str, Any] | None = None, overwrite: bool = False
    ) -> None:
        """Write the model into a folder that `from_preset` reads.

        Args:
            folder: where; created if it is not there.
            metadata: anything to be known about the model, JSON: `description`, `class_names`, `test_accuracy`...
            overwrite: replace a preset that is there.

        Raises:
            ValueError: if the folder holds something and `overwrite` is False.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
            raise ValueError(f"{folder} is not empty; `overwrite=True` replaces the preset in it.")
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            variable.path: np.ascontiguousarray(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")))
            for variable in self.weights  # type: ignore[attr-defined]
        }
        data = safetensors.numpy.save(weights)
        known = {
            **(metadata or {}),
            "format_version": FORMAT_VERSION,
            "parameters": self.count_params(),  # type: ignore[attr-defined]
            "weights_sha256": hashlib.sha256(data).hexdigest(),
        }
        (folder / WEIGHTS).write_bytes(data)
        config = {key: value for key, value in self.get_config().items() if key != "trainable"}  # type: ignore[attr-defined]
        _write_json(folder / CONFIG, {"class_name": type(self).__name__, "config": config})
        _write_json(folder / METADATA, known)

    @classmethod
    def _find(cls, preset: str | Path) -> Traversable:
        names = list(cls.presets)
        if str(preset) in names:
            return _bundled() / str(preset)
        folder = Path(preset)
        if (folder / CONFIG).is_file() and (folder / METADATA).is_file():
            return folder
        near = difflib.get_close_matches(str(preset), names)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(names)}."
        raise ValueError(f"There is no preset {str(preset)!r}, and no folder with a preset. {hint}")


def _load_weights(model: Any, folder: Traversable, metadata: dict[str, Any]) -> None:
    data = (folder / WEIGHTS).read_bytes()
    checksum = hashlib.sha256(data).hexdigest()
    if checksum != metadata.get("weights_sha256"):
        raise ValueError(
            f"{folder / WEIGHTS} is damaged: its SHA-256 is {checksum}, not {metadata.get('weights_sha256')}."
        )
    weights = safetensors.numpy.load(data)
    expected = {variable.path: tuple(variable.shape) for variable in model.weights}
    stored = {path: array.shape for path, array in weights.items()}
    if expected != stored:
        differing = sorted(set(expected.items()) ^ set(stored.items()))
        raise ValueError(
            f"The weights in {folder} are not those of this model; (path, shape) found on one side only: {differing[:6]}"
        )
    for variable in model.weights:
        variable.assign(weights[variable.path])


def _bundled() -> Traversable:
    return resources.files("keras_vit_edu.models") / "presets"


def _read_json(file: Traversable) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
