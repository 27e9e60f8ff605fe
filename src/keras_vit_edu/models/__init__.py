"""Vision Transformers, and the presets that configure them."""

from keras_vit_edu.models.vit_backbone import ViTBackbone
from keras_vit_edu.models.vit_classifier import ViTClassifier

__all__ = ["ViTBackbone", "ViTClassifier"]
