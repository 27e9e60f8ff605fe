"""A kagglehub cache with presets of keras_hub at their real size, their weights random: no network is needed."""

import re
from pathlib import Path

import numpy as np

# Of the published models. The image size is in the names.
SIZES = {
    "deit_tiny_distilled_patch16_224_imagenet": ("DeiT", {"num_layers": 12, "num_heads": 3, "hidden_dim": 192}),
    "vit_base_patch16_224_imagenet": ("ViT", {"num_layers": 12, "num_heads": 12, "hidden_dim": 768}),
}


def random_classifier(preset: str, num_classes: int = 1000):
    """The keras_hub classifier of that preset, with its preprocessor, all weights random."""
    import keras_hub

    family, sizes = SIZES[preset]
    image_size = int(re.search(r"_(\d+)_imagenet", preset)[1])
    mlp = "intermediate_dim" if family == "DeiT" else "mlp_dim"
    sizes = {"image_shape": (image_size, image_size, 3), "patch_size": 16, mlp: 4 * sizes["hidden_dim"], **sizes}
    backbone = getattr(keras_hub.models, f"{family}Backbone")(**sizes)
    converter = getattr(keras_hub.layers, f"{family}ImageConverter")(
        image_size=(image_size, image_size), scale=1 / 127.5, offset=-1
    )
    preprocessor = getattr(keras_hub.models, f"{family}ImageClassifierPreprocessor")(converter)
    classifier = getattr(keras_hub.models, f"{family}ImageClassifier")(
        backbone=backbone, num_classes=num_classes, preprocessor=preprocessor
    )
    rng = np.random.default_rng(0)
    for weight in classifier.weights:
        weight.assign(rng.standard_normal(weight.shape, "float32") * 0.05)
    return classifier


def fill_cache(root: Path, preset: str, classifier=None, markers: bool = True) -> Path:
    """Put a preset where kagglehub would have put it; returns its folder.

    Args:
        root: what `KAGGLEHUB_CACHE` is to be.
        preset: a key of `SIZES`.
        classifier: what to save; None for `random_classifier(preset)`.
        markers: also the empty files by which kagglehub knows that a file, and all, are whole.
    """
    import keras_hub

    handle = keras_hub.models.Backbone.presets[preset]["kaggle_handle"].removeprefix("kaggle://")
    folder = root / "models" / handle
    folder.parent.mkdir(parents=True)
    (classifier or random_classifier(preset)).save_to_preset(str(folder))
    if markers:
        (folder.parent / f"{folder.name}.complete").touch()
        for file in folder.rglob("*"):
            marker = folder.parent / ".complete" / folder.name / f"{file.relative_to(folder)}.complete"
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return folder
