"""Compute the features of a pretrained model once, and cache them on disk."""

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy
from rich.console import Console

from keras_vit_edu._files import write_atomically
from keras_vit_edu._inference import predict_batch
from keras_vit_edu._keras_internals import origin
from keras_vit_edu._machine import device, environment, matrix_precision, version_of
from keras_vit_edu.datasets import ImageFolder
from keras_vit_edu.training.progress import counting
from keras_vit_edu.transfer.freezing import head_of
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.training_images import TrainingImages, scaled

FORMAT_VERSION = 1
CACHE = "KERAS_VIT_EDU_CACHE"


def feature_model(model: keras.Model) -> keras.Model:
    """The part of a classifier before its head.

    Args:
        model: preprocessed images to logits, ending in a Dense layer without activation.

    Returns:
        A model from preprocessed images to features `(B, D)`. It shares its weights with `model`.

    Raises:
        ValueError: if the model does not end in a Dense layer without activation, in a model within it or not.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> feature_model(ViTClassifier(backbone, num_classes=5, head="token", head_units=())).output_shape
        (None, 12)
    """
    head_of(model)
    return _before_head(model)


def _before_head(model: Any) -> keras.Model:
    """The model up to its head, which may be in a nested model at its end."""
    (output,), (images,) = model.outputs, model.inputs
    last, (taken,) = origin(output)
    features = _before_head(last)(taken) if isinstance(last, keras.Model) else taken
    return keras.Model(images, features, name=f"features_of_{model.name}")


def compute_features(
    part: keras.Model,
    preprocessing: Preprocessing,
    data: ImageFolder | tuple[Any, Any] | TrainingImages,
    cache: str | Path | None = None,
    batch_size: int = 32,
    console: Console | None = None,
    keep_pixels: bool = False,
) -> np.ndarray:
    """Compute the features of images with the frozen part of a model, or read them from the cache.

    The name of a cache file depends on everything that the features depend on: the configuration and weights of the
    part, the backend, its version, the device and its TF32 setting, the preprocessing and the contents of the images,
    but not their paths. A file is written in one step. A damaged or foreign file is computed again.

    Args:
        part: maps preprocessed images to features, as `feature_model` returns it. Dropout is off.
        preprocessing: maps raw images to the inputs of `part`.
        data: an `ImageFolder`, or a pair of images and labels as in `fine_tune`.
        cache: folder of the cache; None for `default_cache()`.
        batch_size: images per batch.
        console: shows the progress; None for the standard output.
        keep_pixels: whether to keep all images in memory for later use.

    Returns:
        float32 `(n, ...)`: the features of each image.

    Raises:
        ValueError: if the data are not images, or if a file cannot be read.

    Examples:
        >>> import tempfile
        >>> images = keras.Input((4, 4, 3))
        >>> part = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
        >>> photographs, labels = np.zeros((2, 8, 8, 3), "uint8"), np.array([0, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     console = Console(quiet=True)
        ...     compute_features(part, Preprocessing(4), (photographs, labels), folder, console=console).shape
        (2, 3)
    """
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    images = data if isinstance(data, TrainingImages) else TrainingImages(data)
    key = {
        "format_version": FORMAT_VERSION,
        "backend": keras.backend.backend(),
        "versions": {**environment()["versions"], "pillow": version_of("pillow")},  # Pillow decodes the images
        "device": device(),
        "precision": matrix_precision(),
        "model": model_fingerprint(part),
        "preprocessing": preprocessing.to_json(),
        "images": images.fingerprint,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    folder = default_cache() if cache is None else Path(cache)
    file = folder / f"features-{name[:32]}.safetensors"
    found = _read(file, key, len(images))
    if found is not None:
        console.print(f"features of {len(images):,} images from {file}")
        return found
    features = _computed(part, preprocessing, images, batch_size, console, keep_pixels)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        header = {"key": json.dumps(key, sort_keys=True), "sha256": hashlib.sha256(features.tobytes()).hexdigest()}
        write_atomically(file, safetensors.numpy.save({"features": features}, metadata=header))
    except OSError as error:
        console.print(f"features are not cached: {file} cannot be written ({error.strerror or error})")
    return features


def default_cache() -> Path:
    """The default folder of the cache: `$KERAS_VIT_EDU_CACHE`, else `~/.cache/keras_vit_edu`.

    Examples:
        >>> default_cache()  # doctest: +SKIP
        PosixPath('/home/me/.cache/keras_vit_edu')
    """
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "keras_vit_edu")


def model_fingerprint(model: keras.Model) -> str:
    """A fingerprint of the architecture and the weights of a model, 64 hexadecimal digits. Layer names do not count."""
    digest = hashlib.sha256()
    try:
        text = json.dumps(model.get_config(), sort_keys=True, default=str)
    except NotImplementedError:  # a subclass without a configuration
        text = type(model).__name__
    # Keras numbers models and layers in the order of creation. What trains and the paths do not change the output.
    text = re.sub(r'_\d+(?=["/])', "", text).replace(model.name.rstrip("_0123456789"), "")
    text = re.sub(r'"(trainable|frozen_layers|is_in_scope_of_classifier)": (true|false|\[[^\]]*\])', "", text)
    digest.update(text.encode())
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(weight.value)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _computed(
    part: keras.Model,
    preprocessing: Preprocessing,
    images: TrainingImages,
    batch_size: int,
    console: Console,
    keep_pixels: bool,
) -> np.ndarray:
    if keep_pixels:
        images.pixels(preprocessing, console)
    several = []
    with counting(console, "computing features", len(images)) as advance:
        for start in range(0, len(images), batch_size):
            indices = np.arange(start, min(start + batch_size, len(images)))
            batch = images.batch(preprocessing, indices)
            missing = min(batch_size, len(images)) - len(batch)  # a batch of another size would be compiled again
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            found = np.asarray(predict_batch(part, scaled(batch, preprocessing)), "float32")
            several.append(found[: len(indices)])
            advance(len(indices))
    return np.concatenate(several)


def _read(file: Path, key: dict[str, Any], count: int) -> np.ndarray | None:
    """The features in a file; None if the file is missing, damaged, or belongs to other features."""
    with contextlib.suppress(OSError, safetensors.SafetensorError, ValueError):
        with safetensors.safe_open(file, framework="numpy") as stored:
            header = stored.metadata() or {}
            if json.loads(header.get("key", "null")) != key or "features" not in stored.keys():  # noqa: SIM118
                return None
            if stored.get_slice("features").get_shape()[:1] != [count]:
                return None
            features = stored.get_tensor("features")
        is_whole = hashlib.sha256(features.tobytes()).hexdigest() == header.get("sha256")
        return features if is_whole and features.dtype == np.float32 and len(features) == count else None
    return None
