"""A small `TransferClassifier` with random weights, and photographs of several sizes."""

import numpy as np

from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.transfer import (
    Preprocessing,
    TransferClassifier,
)
from tests.support import opened_vit, random_weights

RNG = np.random.default_rng(0)
PHOTOS = [
    RNG.integers(0, 256, (height, width, 3), "uint8") for height, width in ((40, 60), (80, 50), (32, 32), (33, 90))
]
NAMES = ["cat", "dog", "Löwe"]


def small(class_names=NAMES, image_size=32, **head):
    sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
    backbone = ViTBackbone((image_size, image_size, 3), 8, 12, **sizes, dropout=0, attention_dropout=0)
    model = opened_vit(backbone, len(class_names), **head)
    random_weights(model)
    return TransferClassifier(model, Preprocessing(image_size, scale=1 / 127.5, offset=-1.0), class_names)


def softmax(logits):
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)
