"""Load a classifier by its name: a preset, a run, a fine-tuned classifier or a model of keras_hub."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import keras

from keras_vit_edu import transfer
from keras_vit_edu._checks import class_names as checked_names
from keras_vit_edu.models.keras_file import load_keras_file
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.preset_files import CONFIG, METADATA, read_json
from keras_vit_edu.training import run_record
from keras_vit_edu.training.run_folder import CLASSIFIER
from keras_vit_edu.transfer import artifact_files
from keras_vit_edu.transfer.artifact_files import is_artifact


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier that `load_classifier` found.

    Attributes:
        model: maps preprocessed images to logits.
        class_names: a name for each logit; None if its files have no names.
        photographs: the same model with its preprocessing, if it classifies photographs; else None.
        dataset: name of the dataset on which a run of `train` trained it; else None.
    """

    model: keras.Model
    class_names: tuple[str, ...] | None
    photographs: transfer.TransferClassifier | None = None
    dataset: str | None = None


def load_classifier(name: str | os.PathLike[str], fallback: str | None = None) -> LoadedClassifier:
    """Load a classifier by its name.

    Args:
        name: one of
            - a bundled preset (`vit_mnist_hybrid`), or a folder that `save_to_preset` wrote;
            - the folder of a finished run of `train`;
            - the folder of a finished run of `fine-tune`, or a folder or `.zip` that `TransferClassifier.save` wrote;
            - a preset of keras_hub: a name, a handle (`kaggle://...`, `hf://...`) or a folder;
            - a model folder written by transformers, with a ViT or DeiT.
        fallback: a preset of keras_hub to use if the preset `name` of keras_hub is unavailable.

    Returns:
        The `LoadedClassifier`. For the first two kinds `photographs` is None.

    Raises:
        ValueError: if there is nothing of that name, if a file is damaged, or if a run is not finished.
        ImportError: if keras_hub is needed and not installed.

    Examples:
        >>> found = load_classifier("vit_mnist_hybrid")
        >>> found.model.input_shape, found.class_names[:3]
        ((None, 28, 28, 1), ('0', '1', '2'))
    """
    name = located(os.fspath(name))
    if is_of_photographs(name):
        classifier = photograph_classifier(name, fallback)
        return LoadedClassifier(classifier.model, tuple(classifier.class_names), classifier)
    model, dataset, class_names = trained(name)
    return LoadedClassifier(model, class_names, dataset=dataset)


def evaluation_folder(name: str, images: str) -> Path:
    """The folder in which `keras-vit-edu evaluate` keeps a report: `evaluate-NAME-IMAGES`.

    Args:
        name: of the classifier. Its folder has a short name: `pets` for `runs/pets/classifier` and `pets.zip`.
        images: name of the dataset or folder.

    Examples:
        >>> [str(evaluation_folder(name, "photos")) for name in ("runs/pets", "runs/pets/classifier", "pets.zip")]
        ['evaluate-pets-photos', 'evaluate-pets-photos', 'evaluate-pets-photos']
    """
    path = Path(name).resolve()
    short = path.parent.name if path.name == CLASSIFIER else path.name.removesuffix(".zip")
    return Path(f"evaluate-{short}-{images}")


# The steps of `load_classifier`, for code that knows the kind. --------------------------------------------------------


def located(name: str) -> str:
    """The classifier that a run of `fine-tune` saved, if `name` is its folder; else `name`."""
    saved = artifact_files.located(name)
    return str(saved) if is_artifact(saved) else name


def is_of_photographs(name: str) -> bool:
    """Whether a name stands for a classifier of photographs. Loads nothing."""
    name = located(name)
    return is_artifact(name) or is_of_hub(name)


def photograph_classifier(name: str, fallback: str | None = None) -> transfer.TransferClassifier:
    """Load a saved `TransferClassifier`, or a preset of keras_hub."""
    if is_artifact(name) or name.lower().endswith(".zip"):
        return transfer.TransferClassifier.load(name)
    refuse_run(name)
    return transfer.TransferClassifier.from_preset(name, fallback=fallback)


def refuse_run(name: str) -> None:
    """Raise an error if `name` is the folder of a run. (`located` has handled a finished run of `fine-tune`.)"""
    if (Path(name) / "run.json").is_file():
        trained(name)  # raises an error for an unfinished run of `fine-tune`
        raise ValueError(f"The run in {name} is a run of `train`. Its model does not classify photographs.")


def is_of_hub(name: str) -> bool:
    """Whether a name stands for a preset of keras_hub, not of this library. Does not ask keras_hub."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / CONFIG).is_file() and not (folder / "run.json").is_file() and not _has_own_metadata(folder)
    own = list(Preset.presets)
    if "://" not in name and os.sep in name and not name.lower().endswith(".zip"):
        return False  # a missing folder, which gets its own error
    begins_one = any(own_name.startswith(name) for own_name in own)  # or is one
    return "://" in name or not (begins_one or difflib.get_close_matches(name, own, cutoff=0.8))


def _has_own_metadata(folder: Path) -> bool:
    """Whether `metadata.json` is from this library (or damaged): keras_hub has a file of that name too."""
    try:
        return not {"format_version", "weights_sha256"}.isdisjoint(read_json(folder / METADATA))
    except ValueError:
        return (folder / METADATA).is_file()


def trained(name: str) -> tuple[keras.Model, str | None, tuple[str, ...] | None]:
    """The model of a run folder or a preset, the name of the run's dataset, and the class names, if any."""
    if not (Path(name) / "run.json").is_file():
        model = cast(keras.Model, Preset.from_preset(name))
        metadata = Preset.presets.get(name) or read_json(Path(name) / METADATA)
        return model, None, checked_names(metadata["class_names"]) if "class_names" in metadata else None
    record = run_record.read_record(Path(name))
    if record.get("status", "finished") != "finished":
        verb = "fine-tune" if "fine_tuning" in record else "train"
        raise ValueError(
            f"The run in {name} is not finished (its status is {record['status']!r}). Resume it with {verb}."
        )
    if "fine_tuning" in record:
        raise ValueError(f"The run in {name} is a finished run of `fine-tune`, but its folder {CLASSIFIER} is missing.")
    of_run, _ = run_record.dataset_of(record, Path(name))
    class_names = run_record.class_names_of(record, Path(name))
    return load_keras_file(Path(name) / "model.keras"), of_run["name"], class_names
