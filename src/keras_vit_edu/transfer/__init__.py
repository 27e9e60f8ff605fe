"""Transfer learning from the Vision Transformers of keras_hub."""

from keras_vit_edu.transfer.open_box import open_vit
from keras_vit_edu.transfer.opened_vit import OpenedViTBackbone, OpenedViTClassifier

__all__ = ["OpenedViTBackbone", "OpenedViTClassifier", "open_vit"]
