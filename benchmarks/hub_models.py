"""Classifiers of keras_hub at their real sizes, their weights random, and the same opened."""

import keras
import keras_hub
import numpy as np

from benchmarks.sweep import agree
from keras_vit_edu.transfer import Preprocessing, TransferClassifier, open_vit

SIDE, CLASSES, AGREE = 224, 1000, 1e-5  # the last as a share of the largest logit
SIZES = {"DeiT-Ti/16": ("DeiT", 192, 3), "ViT-S/16": ("ViT", 384, 6)}


def keras_hubs(name: str, num_classes: int = CLASSES, preprocess: bool = True) -> keras.Model:
    """keras_hub's classifier, every weight random; with its preprocessor if `preprocess`.

    (Setting `preprocessor = None` afterwards leaves layers behind that were never built, for which Keras on JAX runs
    the whole model once more, uncompiled, before every `predict_on_batch`.)
    """
    family, width, heads = SIZES[name]
    models, keras_hub_layers = keras_hub.models, keras_hub.layers
    sizes = {"num_layers": 12, "num_heads": heads, "hidden_dim": width}
    sizes["intermediate_dim" if family == "DeiT" else "mlp_dim"] = 4 * width
    backbone = getattr(models, f"{family}Backbone")(image_shape=(SIDE, SIDE, 3), patch_size=16, **sizes)
    converter = getattr(keras_hub_layers, f"{family}ImageConverter")(
        image_size=(SIDE, SIDE), scale=1 / 127.5, offset=-1
    )
    preprocessor = getattr(models, f"{family}ImageClassifierPreprocessor")(converter)
    classifier = getattr(models, f"{family}ImageClassifier")(
        backbone=backbone, num_classes=num_classes, preprocessor=preprocessor if preprocess else None
    )
    rng = np.random.default_rng(0)
    for weight in classifier.weights:
        weight.assign(rng.standard_normal(weight.shape, "float32") * 0.05)
    return classifier


def opened(theirs: keras.Model) -> TransferClassifier:
    """Ours with the same weights; the logits are compared first."""
    names = [str(i) for i in range(theirs.output_shape[-1])]
    ours = TransferClassifier(open_vit(theirs), Preprocessing(SIDE, scale=1 / 127.5, offset=-1.0), names)
    images = np.random.default_rng(1).random((2, SIDE, SIDE, 3), "float32")
    agree(ours.model(images, training=False), theirs(images, training=False), AGREE)
    return ours
