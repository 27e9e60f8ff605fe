"""What the name of a classifier means: a preset, a run, what fine-tuning saved, a model of keras_hub."""

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
    """A classifier that was found by its name.

    Attributes:
        model: images, made ready, to logits.
        class_names: a name for each logit; None if its files do not say.
        photographs: the same model with its preprocessing, if it classifies photographs; else None.
        dataset: the name of the dataset that a run of `train` learned from; else None.
    """

    model: keras.Model
    class_names: tuple[str, ...] | None
    photographs: transfer.TransferClassifier | None = None
    dataset: str | None = None


def load_classifier(name: str | os.PathLike[str], fallback: str | None = None) -> LoadedClassifier:
    """Load a classifier, whatever kind of thing the name stands for.

    Args:
        name: one of
            - a bundled preset (`vit_mnist_hybrid`), or a folder that `save_to_preset` wrote;
            - the run folder of a finished `train`;
            - the run folder of a finished `fine-tune`, or what `TransferClassifier.save` wrote, a folder or a `.zip`;
            - a preset of keras_hub: a name, a handle (`kaggle://...`, `hf://...`) or a folder;
            - a folder of transformers with a ViT or DeiT.
        fallback: the preset of keras_hub to take if the one of that name cannot be had.

    Returns:
        The `LoadedClassifier`. The first two kinds have `photographs` None.

    Raises:
        ValueError: if nothing of that name is there, a file is damaged or a run is not finished.
        ImportError: if keras_hub is needed and not installed.

    Example:

    >>> from keras_vit_edu import load_classifier
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


# Each step of it, for who knows which kind it is. ---------------------------------------------------------------------


def located(name: str) -> str:
    """What a run of `fine-tune` saved, if `name` is its folder; else the name as it is."""
    saved = artifact_files.located(name)
    return str(saved) if is_artifact(saved) else name


def is_of_photographs(name: str) -> bool:
    """Whether a name is one of a classifier of photographs. Nothing is loaded."""
    name = located(name)
    return is_artifact(name) or is_of_hub(name)


def photograph_classifier(name: str, fallback: str | None = None) -> transfer.TransferClassifier:
    """What a `TransferClassifier` saved, or a preset of keras_hub."""
    if is_artifact(name) or name.lower().endswith(".zip"):
        return transfer.TransferClassifier.load(name)
    refuse_run(name)
    return transfer.TransferClassifier.from_preset(name, fallback=fallback)


def refuse_run(name: str) -> None:
    """Complain if `name` is the folder of a run. (A finished fine-tuning does not get here: see `located`.)"""
    if (Path(name) / "run.json").is_file():
        trained(name)  # complains if it is a fine-tuning that has not come to its end
        raise ValueError(f"The run in {name} is of `train`, whose model does not classify photographs.")


def is_of_hub(name: str) -> bool:
    """Whether a name is one for keras_hub, and not for this library's own presets; without a look into keras_hub."""
    folder = Path(name)
    if folder.is_dir():
        return (folder / CONFIG).is_file() and not (folder / "run.json").is_file() and not _has_own_metadata(folder)
    own = list(Preset.presets)
    if "://" not in name and os.sep in name and not name.lower().endswith(".zip"):
        return False  # a folder that is not there, and is complained about as such
    begins_one = any(own_name.startswith(name) for own_name in own)  # or is one
    return "://" in name or not (begins_one or difflib.get_close_matches(name, own, cutoff=0.8))


def _has_own_metadata(folder: Path) -> bool:
    """Whether `metadata.json` is what this library writes (or is damaged): keras_hub has a file of that name too."""
    try:
        return not {"format_version", "weights_sha256"}.isdisjoint(read_json(folder / METADATA))
    except ValueError:
        return (folder / METADATA).is_file()


def trained(name: str) -> tuple[keras.Model, str | None, tuple[str, ...] | None]:
    """The model of a run folder or a preset, the name of the run's dataset, and of the classes (None: nowhere said)."""
    if not (Path(name) / "run.json").is_file():
        model = cast(keras.Model, Preset.from_preset(name))
        metadata = Preset.presets.get(name) or read_json(Path(name) / METADATA)
        return model, None, checked_names(metadata["class_names"]) if "class_names" in metadata else None
    record = run_record.read_record(Path(name))
    if record.get("status", "finished") != "finished":
        verb = "fine-tune" if "fine_tuning" in record else "train"
        raise ValueError(f"The run in {name} is not finished (it says {record['status']!r}); {verb} resumes it.")
    if "fine_tuning" in record:
        raise ValueError(f"The run in {name} is a finished fine-tuning, but its {CLASSIFIER} is no longer there.")
    of_run, _ = run_record.dataset_of(record, Path(name))
    class_names = run_record.class_names_of(record, Path(name))
    return load_keras_file(Path(name) / "model.keras"), of_run["name"], class_names
