"""Transfer learning from the Vision Transformers of keras_hub."""

from keras_vit_edu import _backend

if not _backend.ONLY_HELP:
    import keras_vit_edu.transfer.older_files  # registers the old class name  # noqa: F401
    from keras_vit_edu.transfer.artifact_files import ArtifactError
    from keras_vit_edu.transfer.classifier import TransferClassifier
    from keras_vit_edu.transfer.features import compute_features, default_cache, feature_model
    from keras_vit_edu.transfer.fine_tuning import BALANCED, fine_tune
    from keras_vit_edu.transfer.fine_tuning_options import FineTuning
    from keras_vit_edu.transfer.freezing import freeze_backbone, unfreeze_last
    from keras_vit_edu.transfer.hub import COURSES_FALLBACK, HubPreset, PresetUnavailable, list_presets, load_preset
    from keras_vit_edu.transfer.layer_decay import layer_wise
    from keras_vit_edu.transfer.lora import add_lora, merge_lora
    from keras_vit_edu.transfer.open_box import open_vit
    from keras_vit_edu.transfer.predictions import Predictions
    from keras_vit_edu.transfer.preprocessing import Preprocessing

__all__ = [
    "BALANCED",
    "COURSES_FALLBACK",
    "ArtifactError",
    "FineTuning",
    "HubPreset",
    "Predictions",
    "Preprocessing",
    "PresetUnavailable",
    "TransferClassifier",
    "add_lora",
    "compute_features",
    "default_cache",
    "feature_model",
    "fine_tune",
    "freeze_backbone",
    "layer_wise",
    "list_presets",
    "load_preset",
    "merge_lora",
    "open_vit",
    "unfreeze_last",
]
