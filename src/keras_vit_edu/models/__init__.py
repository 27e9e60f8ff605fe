"""Vision Transformers, a convolutional network to compare them with, and the presets that configure them."""

from keras_vit_edu.models.cnn_classifier import CNNClassifier
from keras_vit_edu.models.fit_to_images import overrides_for_images
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.reference_logits import reference_logits
from keras_vit_edu.models.vit_backbone import ViTBackbone
from keras_vit_edu.models.vit_classifier import ViTClassifier

__all__ = [
    "CNNClassifier",
    "Preset",
    "ViTBackbone",
    "ViTClassifier",
    "overrides_for_images",
    "reference_logits",
]
