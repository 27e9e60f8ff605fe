"""Load a pretrained classifier by a name, a handle or a folder: the steps of `TransferClassifier.from_preset`."""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_vit_edu._types import DType
from keras_vit_edu.transfer import artifact_files, hub, hub_classifier, hugging_face, transformers_folder
from keras_vit_edu.transfer.class_names import checked_names
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.transformers_images import FILE, read_preprocessing

ASK_FOR_NEW_HEAD = "give `class_names` for a new head."


class Pretrained(NamedTuple):
    """The arguments of a `TransferClassifier`."""

    model: Any
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    provenance: dict[str, Any]


def load_pretrained(
    preset: str | Path,
    class_names: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    load_weights: bool = True,
    fallback: str | None = None,
    preprocessing: Preprocessing | None = None,
    dtype: DType | None = None,
) -> Pretrained:
    """Load a pretrained model. Arguments and errors as in `TransferClassifier.from_preset`.

    A ViT or DeiT that transformers wrote is read by this library. Everything else is loaded by keras_hub.
    """
    if artifact_files.is_artifact(preset):
        raise ValueError(f"This was saved by a TransferClassifier, whose `load` opens it. Received: {preset}")
    names = None if class_names is None else checked_names(class_names)
    if names is not None and (len(names) < 2 or len(set(names)) != len(names)):
        raise ValueError(f"There must be two class names or more, each another one. Received: {list(names)}")
    folder = _folder_of_transformers_vit(preset)
    if folder is not None:
        return _from_transformers(folder, preset, names, image_size, load_weights, preprocessing, dtype)
    return _from_keras_hub(preset, names, image_size, load_weights, fallback, preprocessing, dtype)


# From transformers. ---------------------------------------------------------------------------------------------------


def _folder_of_transformers_vit(preset: str | Path) -> Path | None:
    """The folder of a ViT or DeiT that transformers wrote; None if `preset` is something else."""
    try:
        folder = hugging_face.folder_of_transformers(preset)
    except hub.PresetUnavailable:  # keras_hub is asked next; it takes the fallback or raises the same error
        return None
    kind = None if folder is None else transformers_folder.model_type_of(folder)
    return folder if kind in transformers_folder.PREFIX_TOKENS else None


def _from_transformers(
    folder: Path,
    preset: str | Path,
    names: tuple[str, ...] | None,
    image_size: int | Sequence[int] | None,
    load_weights: bool,
    preprocessing: Preprocessing | None,
    dtype: DType | None,
) -> Pretrained:
    if preprocessing is None:
        kind = str(transformers_folder.model_type_of(folder))
        preprocessing = _at_size(read_preprocessing(folder, kind), image_size)
    try:
        model, own_names = transformers_folder.load_model(
            folder, None if names is None else len(names), image_size, load_weights, dtype
        )
    except transformers_folder.WithoutHead as error:
        raise hub.NoHead(f"{error}; {ASK_FOR_NEW_HEAD}") from None
    provenance = {**_provenance(str(preset), names, load_weights), "written_by": "transformers"}
    return Pretrained(
        model, preprocessing, names or own_names or _names_of_classes(str(preset), model.num_classes), provenance
    )


# From keras_hub. ------------------------------------------------------------------------------------------------------


def _from_keras_hub(
    preset: str | Path,
    names: tuple[str, ...] | None,
    image_size: int | Sequence[int] | None,
    load_weights: bool,
    fallback: str | None,
    preprocessing: Preprocessing | None,
    dtype: DType | None,
) -> Pretrained:
    num_new_classes = None if names is None else len(names)
    given: dict[str, Any] = {"num_classes": num_new_classes, "dtype": dtype}
    arguments = {name: value for name, value in given.items() if value is not None}
    try:
        theirs, loaded = hub.load_and_name(preset, fallback=fallback, load_weights=load_weights, **arguments)
    except hub.NoHead as error:
        raise hub.NoHead(f"{error}; {ASK_FOR_NEW_HEAD}") from None
    preprocessing = preprocessing or _preprocessing_of(theirs, image_size, loaded)
    model = hub_classifier.open_or_wrap(theirs, loaded, num_new_classes, image_size, load_weights, dtype)
    provenance = {
        **_provenance(loaded, names, load_weights),
        "keras_hub": importlib.metadata.version("keras-hub"),
    }
    return Pretrained(model, preprocessing, names or _names_of_classes(loaded, model.output_shape[-1]), provenance)


def _preprocessing_of(theirs: Any, image_size: int | Sequence[int] | None, preset: str) -> Preprocessing:
    """The preprocessing of keras_hub's classifier, with a new image size if requested."""
    converter = getattr(theirs.preprocessor, "image_converter", None)
    if converter is None and (Path(preset) / FILE).is_file():
        return _at_size(read_preprocessing(Path(preset), "vit"), image_size)
    if converter is None:
        raise ValueError(
            "The preset has no preprocessing. Pass `preprocessing`. "
            f"Received: {theirs.name}, without an image converter"
        )
    preprocessing = _at_size(Preprocessing.from_converter(converter), image_size)
    if preprocessing.image_size is None:
        height, width = hub_classifier.height_and_width(theirs)
        if height and width:
            return dataclasses.replace(preprocessing, image_size=(height, width))
    return preprocessing


# What both say. -------------------------------------------------------------------------------------------------------


def _at_size(preprocessing: Preprocessing, image_size: int | Sequence[int] | None) -> Preprocessing:
    return preprocessing if image_size is None else preprocessing.at_image_size(image_size)


def _provenance(preset: str, names: tuple[str, ...] | None, load_weights: bool) -> dict[str, Any]:
    return {
        "preset": preset,
        "weights": "pretrained" if load_weights else "random",
        "head": "of the preset" if names is None else "new",
    }


def _names_of_classes(preset: str, num_classes: int) -> tuple[str, ...]:
    """The names of the classes of a preset's own head; numbers if the preset does not name them."""
    told = hub.class_names_in_folder(preset)
    if told is not None and len(told) == num_classes:
        return told
    if num_classes == 1000:
        if not hub.is_of_imagenet(preset):
            print(f"keras_vit_edu: {preset} does not name its 1000 classes; these are ImageNet's.", file=sys.stderr)
        return hub.imagenet_names()
    return tuple(map(str, range(num_classes)))
