"""A small classifier to look into."""

from keras_vit_edu.models import ViTBackbone, ViTClassifier
from tests.support import random_weights

SIZES = {"projection_dim": 8, "num_layers": 2, "num_heads": 2, "key_dim": 4, "mlp_dim": 10}


def small_classifier(head="mean", head_units=(), image_shape=(8, 12, 3), **arguments):
    """Images of 2 x 3 patches to 4 logits, with random weights."""
    model = ViTClassifier(ViTBackbone(image_shape, 4, **{**SIZES, **arguments}), 4, head=head, head_units=head_units)
    random_weights(model)
    return model
