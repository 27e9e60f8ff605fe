"""Transfer learning from the Vision Transformers of keras_hub."""

from keras_vit_edu.transfer.artifact_files import ArtifactError
from keras_vit_edu.transfer.classifier import Predictions, TransferClassifier
from keras_vit_edu.transfer.hub import COURSES_FALLBACK, HubPreset, PresetUnavailable, list_presets, load
from keras_vit_edu.transfer.open_box import open_vit
from keras_vit_edu.transfer.opened_vit import OpenedViTBackbone, OpenedViTClassifier
from keras_vit_edu.transfer.preprocessing import Preprocessing

__all__ = [
    "COURSES_FALLBACK",
    "ArtifactError",
    "HubPreset",
    "OpenedViTBackbone",
    "OpenedViTClassifier",
    "Predictions",
    "Preprocessing",
    "PresetUnavailable",
    "TransferClassifier",
    "list_presets",
    "load",
    "open_vit",
]
