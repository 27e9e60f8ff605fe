"""Load files from before 0.1.0, in which an opened ViT had a different class."""

from typing import Any

import keras

from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.transfer.open_box import head_arguments


@keras.saving.register_keras_serializable(package="keras_vit_edu", name="OpenedViTClassifier")
class OpenedViTClassifier(ViTClassifier):
    """The class name in such a `.keras` file. It loads as a `ViTClassifier`."""

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ViTClassifier:
        """The same model as a `ViTClassifier`."""
        head = head_arguments(config["pooling"], config["pre_logits_dim"], config["head_dropout"])
        kept = ("name", "trainable", "backbone", "num_classes", "activation", "head_dtype")
        return ViTClassifier.from_config({**{name: config[name] for name in kept}, **head}, custom_objects)
