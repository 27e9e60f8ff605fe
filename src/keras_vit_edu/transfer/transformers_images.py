"""Read `preprocessor_config.json`, transformers' preprocessing for a ViT or DeiT, as a `Preprocessing`."""

from pathlib import Path
from typing import Any

from keras_vit_edu import _checks
from keras_vit_edu._files import read_json
from keras_vit_edu.transfer.preprocessing import Preprocessing

FILE = "preprocessor_config.json"
INTERPOLATIONS = {0: "nearest", 1: "lanczos3", 2: "bilinear", 3: "bicubic"}  # by Pillow's number
# The defaults of each processor, from transformers' class attributes.
_OF_ALL: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_pad": False,
}
DEFAULTS = {
    "vit": {**_OF_ALL, "size": 224, "resample": 2, "do_center_crop": False, "crop_size": 224},
    "deit": {**_OF_ALL, "size": 256, "resample": 3, "do_center_crop": True, "crop_size": 224},
}
PROCESSORS = {  # an older version wrote `feature_extractor_type`
    "ViTImageProcessor": "vit",
    "ViTFeatureExtractor": "vit",
    "DeiTImageProcessor": "deit",
    "DeiTFeatureExtractor": "deit",
}


def read_preprocessing(folder: Path, model_type: str) -> Preprocessing:
    """What the image processor of a folder of transformers does, to a pixel value for `uint8` images.

    Args:
        folder: holds `preprocessor_config.json`.
        model_type: `"vit"` or `"deit"`: whose defaults hold where the file names no processor.

    Returns:
        A `Preprocessing` that resamples as Pillow does.

    Raises:
        ValueError: if there is no such file, if it is no JSON object, or asks for a step that is none of resize,
            centre crop, rescale and normalize of those two processors.

    References:
        transformers' `ViTImageProcessor` and `DeiTImageProcessor`.
    """
    file = folder / FILE
    if not file.is_file():
        raise ValueError(
            f"The folder must hold {FILE}, which says what images go through first. Save it there with "
            f"transformers' `AutoImageProcessor`, or give `preprocessing`. Received: {folder} without {FILE}"
        )
    said = read_json(file)
    if not isinstance(said, dict):
        raise ValueError(f"{FILE} must hold a JSON object. Received: {file} with a {type(said).__name__}")
    try:
        return _preprocessing(said, model_type)
    except ValueError as error:
        raise ValueError(f"{FILE} cannot be used; `preprocessing` can replace it. {error} (in {file})") from None


def _preprocessing(said: dict[str, Any], model_type: str) -> Preprocessing:
    values = dict(DEFAULTS[_kind(said, model_type)])
    values |= {name: said[name] for name in values if said.get(name) is not None}
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad"):
        if not isinstance(values[name], bool):
            raise ValueError(f"`{name}` must be true or false. Received: {name}={values[name]!r}")
    if values["do_pad"]:
        raise ValueError("Images are resized and cropped here, not padded. Received: do_pad=True")
    scale, offset = _scale_and_offset(values)
    sizes = _sizes(values)
    resample = values["resample"] if values["do_resize"] else 2
    if isinstance(resample, bool) or not isinstance(resample, int) or resample not in INTERPOLATIONS:
        numbers = ", ".join(f"{number} ({name})" for number, name in INTERPOLATIONS.items())
        raise ValueError(f"`resample` must be one of {numbers}. Received: resample={resample!r}")
    return Preprocessing(
        crop_to_aspect_ratio=False,
        interpolation=INTERPOLATIONS[resample],
        antialias=True,
        scale=scale,
        offset=offset,
        data_format="channels_last",
        pillow=True,
        **sizes,
    )


def _kind(said: dict[str, Any], model_type: str) -> str:
    """The processor whose defaults apply."""
    name = said.get("image_processor_type") or said.get("feature_extractor_type")
    if name is None:
        return model_type
    known = PROCESSORS.get(str(name).removesuffix("Fast").removesuffix("Pil"))
    if known is None:
        raise ValueError(f"The image processor must be one of {', '.join(PROCESSORS)}. Received: {name!r}")
    return known


def _sizes(values: dict[str, Any]) -> dict[str, Any]:
    """`image_size` and `resize_size`."""
    if not values["do_resize"]:
        if values["do_center_crop"]:
            raise ValueError("A crop must follow a resize. Received: do_center_crop=True, do_resize=False")
        return {"image_size": None}
    size = _size("size", values["size"], allow_shortest=values["do_center_crop"])
    if not values["do_center_crop"]:
        return {"image_size": size}
    return {"image_size": _size("crop_size", values["crop_size"]), "resize_size": size}


def _size(name: str, said: Any, allow_shortest: bool = False) -> Any:
    """A pair `(height, width)`; an int for `{"shortest_edge": n}`."""
    if not isinstance(said, dict):
        return _checks.pair_of_ints(name, said)
    said = {key: value for key, value in said.items() if value is not None}
    if set(said) == {"height", "width"}:
        return _checks.pair_of_ints(name, (said["height"], said["width"]))
    if set(said) != {"shortest_edge"}:
        raise ValueError(
            f"`{name}` must be a number, a height and a width, or a shortest_edge. Received: {name}={said!r}"
        )
    if not allow_shortest:
        raise ValueError(f"`{name}` must be a height and a width where no crop follows. Received: {name}={said!r}")
    return _checks.positive_int("shortest_edge", said["shortest_edge"])


def _scale_and_offset(values: dict[str, Any]) -> tuple[Any, Any]:
    """`(pixels * rescale_factor - mean) / std` as `pixels * scale + offset`."""
    factor = _checks.number(values["rescale_factor"]) if values["do_rescale"] else 1.0
    if not values["do_normalize"]:
        return factor, None
    mean, std = (_channels(name, values[name]) for name in ("image_mean", "image_std"))
    if 0.0 in std:
        raise ValueError(f"`image_std` must not be 0. Received: image_std={values['image_std']!r}")
    scale = tuple(factor / one for one in std)
    return scale, tuple(-m / s for m, s in zip(mean, std, strict=True))


def _channels(name: str, said: Any) -> list[float]:
    several = list(said) if isinstance(said, (list, tuple)) else [said] * 3
    if len(several) != 3 or not all(map(_checks.is_number, several)):
        raise ValueError(f"`{name}` must be a number, or three of them. Received: {name}={said!r}")
    return [float(one) for one in several]
