"""A small opened classifier and images to fine-tune it on."""

import keras
import numpy as np

from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.transfer import Preprocessing
from tests.support import opened_vit, random_weights

PREPROCESSING = Preprocessing(16, scale=1 / 127.5, offset=-1.0)
SIZES = {"projection_dim": 12, "num_layers": 3, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}


def classifier(num_classes=3, pre_logits_dim=None, **arguments):
    """Three blocks, dropout everywhere, no weight 0 or 1."""
    dropouts = {"dropout": 0.1, "attention_dropout": 0.1, "embedding_dropout": 0.1}
    backbone = ViTBackbone((16, 16, 3), 8, **{**SIZES, **dropouts, **arguments})
    model = opened_vit(backbone, num_classes, pre_logits_dim=pre_logits_dim)
    random_weights(model, seed=1)
    return model


def coloured(count=36, num_classes=3, seed=0):
    """Noise, uint8 `(count, 20, 24, 3)`, each class brighter in a colour of its own; labels in turn."""
    labels = np.arange(count) % num_classes
    images = np.random.default_rng(seed).integers(0, 150, (count, 20, 24, 3)).astype("uint8")
    for label in range(num_classes):
        images[labels == label, :, :, label % 3] += 100
    return images, labels


def weights(model):
    """The bits of every weight, by path."""
    return {w.path: keras.ops.convert_to_numpy(w.value).tobytes() for w in model.weights}


def changed(model, before):
    """The paths of the weights whose bits are others now."""
    return {path for path, bits in weights(model).items() if bits != before[path]}
