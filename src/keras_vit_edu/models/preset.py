"""Presets: a folder that holds a model's configuration, what is known about it, and its weights.

A preset is for using a model; to go on training one where it stopped, with its dropout masks, save it as `.keras`.
What is in the folder stands in `preset_files.py`.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._building import TooLarge, budget_for, within
from keras_vit_edu._configuration import check_numbers, check_runs_no_code
from keras_vit_edu._files import replace_together, to_json
from keras_vit_edu._tensor_file import Header, arrays, encoded
from keras_vit_edu.models import adapt_weights, flat_config, preset_files, size_limits
from keras_vit_edu.models.preset_files import CONFIG, FORMAT_VERSION, METADATA, WEIGHTS, WEIGHTS_DTYPES, read_json
from keras_vit_edu.models.weight_names import weights_by_name

ADAPTED = ("image_shape", "num_classes")  # arguments that a model with weights may override


class _Presets:
    """Read on the class: the metadata of every bundled preset of that class (of `Preset`: of any), by name."""

    def __get__(self, instance: Any, owner: type) -> dict[str, dict[str, Any]]:
        return {
            folder.name: read_json(folder / METADATA)
            for folder in sorted(_bundled().iterdir(), key=lambda entry: entry.name)
            if (folder / CONFIG).is_file() and (owner is Preset or _is_of(owner, read_json(folder / CONFIG)))
        }


class Preset:
    """Gives a model class `from_preset`, `save_to_preset` and `presets`.

    On `Preset` itself they are about presets of any class: `Preset.from_preset(name)` is a `ViTClassifier` or a
    `CNNClassifier`, as the preset says.

    Examples:
        >>> Preset.presets["vit_mnist_pure"]["class_names"][:3]
        ['0', '1', '2']
        >>> type(Preset.from_preset("cnn_mnist", load_weights=False)).__name__
        'CNNClassifier'
    """

    presets = _Presets()

    @classmethod
    def from_preset(cls, preset: str | Path, load_weights: bool = True, **overrides: Any) -> Self:
        """The model that a preset holds. Nothing is fetched from a network, and no code of the preset is run.

        Args:
            preset: the name of a bundled preset (`presets` lists them), or a folder that `save_to_preset` wrote.
            load_weights: False for random weights.
            **overrides: arguments to use instead of the preset's, such as `dtype` or `dropout`; for a `ViTClassifier`
                those of its backbone and stem too, under the flat names of `models.flat_config` (`activation` of the
                MLPs, `logits_activation`, `stem_dropout`, `locality`); `kernel_initializer` is for all parts. With
                weights, only `num_classes` and the height and width in `image_shape` may change the shape of a weight:
                positions are interpolated, and the head is new and untrained if any of its weights does not fit.
                `patch_size` must divide the image. Others, such as `num_layers`, need `load_weights=False`.

        Returns:
            The model.

        Raises:
            ValueError: if there is no such preset, if one of its files is missing, damaged or of another format, if an
                argument is none of the constructor's, if the configuration holds code, if a link leads out of the
                folder, if the preset has no weights and they were not declined, if they do not fit the model or are
                not finite, or if a size is beyond `size_limits`. A model larger than its weights is not built.

        Examples:
            >>> from keras_vit_edu.models import ViTClassifier
            >>> ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False).count_params()
            4544778
        """
        folder = cls._find(preset)
        config, metadata = read_json(folder / CONFIG), read_json(folder / METADATA)
        preset_files.check_version(preset, metadata)
        if not isinstance(config.get("class_name"), str) or not isinstance(config.get("config"), dict):
            raise ValueError(
                f"{folder / CONFIG} must hold the name of a class, `class_name`, and its arguments, `config`. "
                f"Received: {', '.join(config) or 'nothing'}"
            )
        check_runs_no_code(config["config"])
        check_numbers(config["config"])
        model_class = _class_named(config["class_name"]) if cls is Preset else cls
        if model_class is None or not _is_of(model_class, config):
            whose = "which is no class of this library" if cls is Preset else f"not of {cls.__name__}"
            raise ValueError(f"{preset} is a preset of {config['class_name']}, {whose}.")
        if load_weights and not (folder / WEIGHTS).is_file():
            problem = "is a configuration without weights" if not metadata.get("weights_sha256") else f"lacks {WEIGHTS}"
            raise ValueError(
                f"The preset {preset} {problem}. "
                f"For random weights: {cls.__name__}.from_preset({str(preset)!r}, load_weights=False)"
            )
        own = flat_config.flattened(config["config"])
        arguments = {**own, **overrides}
        if "kernel_initializer" in overrides:
            arguments = {**_without(flat_config.INITIALIZERS, arguments), **overrides}
        size_limits.check(arguments)
        header = preset_files.verified_weights(folder, metadata) if load_weights else None
        is_adapted = any(_differ(overrides[name], own.get(name)) for name in ADAPTED if name in overrides)
        budget = size_limits.budget()
        if header and not is_adapted:
            budget = budget_for(header.elements, len(header.shapes), is_filled_later=True)
        try:
            with within(budget):
                model: Any = model_class._from_flat(arguments)  # type: ignore[attr-defined]
        except TooLarge as error:
            raise ValueError(f"The preset {preset} is not built. {error}") from None
        except ValueError:
            raise
        except Exception as error:  # what layers and backends raise for arguments that nobody has thought of
            reason = str(error).split("\n")[0]
            raise ValueError(
                f"The arguments of the preset {preset} do not fit {model_class.__name__}: {reason}"
            ) from error
        if header:
            _load_weights(model, folder, header, adapt_weights.grid_of(own) if is_adapted else None, is_adapted)
        return model

    @classmethod
    def _from_flat(cls, arguments: Mapping[str, Any]) -> Self:
        """The model of these arguments, of which a preset may hold nested ones under flat names: see `flat_config`."""
        return cls(**arguments)

    def save_to_preset(
        self,
        folder: str | Path,
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        weights_dtype: str = "float32",
    ) -> None:
        """Write the model into a folder that `from_preset` reads.

        Stopped at any moment, it leaves what was there before, or a folder without `metadata.json`, which
        `from_preset` refuses: never half of a preset that looks whole.

        Args:
            folder: where; created if it is not there.
            metadata: anything to be known about the model, JSON: `description`, `class_names`, `test_accuracy`...
            overwrite: replace a preset that is there; other files in the folder stay.
            weights_dtype: how the weights lie in the file: `"float32"`, as they are, or `"float16"`, in half the bytes
                and with 11 significant bits of 24. They are loaded as float32 either way; what rounding them costs is
                to be measured.

        Raises:
            ValueError: if the folder is a file, or holds something and `overwrite` is False; if the metadata is not
                JSON, or its `class_names` are no list of different texts; if the model is quantized, has LoRA weights
                or holds a layer with code; for another `weights_dtype`, or a weight above 65504 with `"float16"`; if
                `from_preset` would refuse it: a weight is not finite, a size is beyond `size_limits`, or the metadata
                takes more than 4 MiB.

        Examples:
            >>> import tempfile
            >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
            >>> model = ViTClassifier(ViTBackbone((28, 28, 1), 7, 16, 1, 2, 8, 32), head="mean", head_units=())
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_to_preset(folder, {"description": "a small one"}, weights_dtype="float16")
            ...     ViTClassifier.from_preset(folder).get_layer("logits").kernel.dtype
            'float32'
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"A preset is a folder, and {folder} is a file.")
        if folder.is_dir() and any(folder.iterdir()) and not overwrite:
            raise ValueError(f"{folder} is not empty; `overwrite=True` replaces the preset in it.")
        if weights_dtype not in WEIGHTS_DTYPES:
            raise ValueError(
                f"`weights_dtype` must be {' or '.join(WEIGHTS_DTYPES)}. Received: weights_dtype={weights_dtype!r}"
            )
        if metadata and "class_names" in metadata:
            _checks.class_names(metadata["class_names"])
        for weight in self.weights:  # type: ignore[attr-defined]
            _check_is_plain(weight)
        weights = {name: _as_float32(weight) for name, weight in weights_by_name(self).items()}
        data = encoded(weights, weights_dtype)
        config = _without(("trainable", "frozen_layers"), self.get_config())  # type: ignore[attr-defined]
        check_runs_no_code(config)
        check_numbers(config)
        size_limits.check(flat_config.flattened(config))
        known = {
            "format_version": FORMAT_VERSION,
            "parameters": self.count_params(),  # type: ignore[attr-defined]
            "weights_dtype": weights_dtype,
            "weights_bytes": len(data),
            "weights_sha256": hashlib.sha256(data).hexdigest(),
        }
        files = {
            WEIGHTS: data,
            CONFIG: to_json(CONFIG, {"class_name": type(self).__name__, "config": config}),
            METADATA: to_json(METADATA, {**known, **(metadata or {}), **known}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        replace_together(folder, files, remove_first=METADATA)

    @classmethod
    def _find(cls, preset: str | Path) -> Traversable:
        names = list(cls.presets)
        if preset in Preset.presets:  # one of another class has its own complaint
            return _bundled() / str(preset)
        folder = Path(preset)
        if folder.is_dir():
            preset_files.check_folder(folder)
            return folder
        hint = _checks.did_you_mean(str(preset), names, at_most=3) or f"There are {', '.join(names)}."
        raise ValueError(f"There is no preset {str(preset)!r}, and no folder of that name. {hint}")


def _class_named(name: str) -> type | None:
    """The model class of that name, of those that have presets; no code but theirs is ever run."""
    return {cls.__name__: cls for cls in reversed(Preset.__subclasses__())}.get(name)


def _is_of(cls: type, config: dict[str, Any]) -> bool:
    """Whether the preset is one of `cls`; those of a class are also those of its subclasses."""
    return config.get("class_name") in [ancestor.__name__ for ancestor in cls.__mro__]


def _without(names: tuple[str, ...], config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without arguments of these names, in the backbone too."""
    kept = {name: value for name, value in config.items() if name not in names}
    if "backbone" in kept:
        kept["backbone"] = {**kept["backbone"], "config": _without(names, kept["backbone"]["config"])}
    return kept


def _differ(new: Any, old: Any) -> bool:
    as_tuples = [tuple(value) if isinstance(value, (list, tuple)) else value for value in (new, old)]
    return as_tuples[0] != as_tuples[1]


def _check_is_plain(weight: keras.Variable) -> None:
    if not keras.backend.is_float_dtype(weight.dtype) or "lora" in weight.name:
        raise ValueError(
            "A preset holds plain weights, neither quantized ones nor LoRA's (saved as `.keras` and loaded again, the "
            f"latter are merged into the kernels). Received: {weight.path} of dtype {weight.dtype}"
        )


def _as_float32(weight: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))


def _load_weights(model: Any, folder: Traversable, header: Header, grid: Any, is_adapted: bool) -> None:
    variables = weights_by_name(model)
    wanted, stored = {name: tuple(variable.shape) for name, variable in variables.items()}, header.shapes
    only_stored, only_wanted = stored.items() - wanted.items(), wanted.items() - stored.items()
    if is_adapted:
        only_stored, only_wanted = adapt_weights.misfits(model, stored)
    if only_stored or only_wanted:
        raise ValueError(
            f"The weights in {folder / WEIGHTS} are not those of this model. "
            f"Only there: {_some(only_stored)}. Only in the model: {_some(only_wanted)}. Arguments that change the "
            "shape of a weight (of `image_shape`, only the channels do) need load_weights=False, for random weights."
        )
    with preset_files.opened_weights(folder) as stream:
        adapt_weights.fill(model, arrays(stream, header), stored, grid)


def _some(paths_and_shapes: set[tuple[str, tuple[int, ...]]]) -> str:
    """The first three of them, in words."""
    first = [f"{path} {shape}" for path, shape in sorted(paths_and_shapes)[:3]]
    more = len(paths_and_shapes) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "") if first else "nothing"


def _bundled() -> Traversable:
    return resources.files("keras_vit_edu.models") / "presets"
