"""Load files from before 0.1.0, in which an opened ViT had a different class."""

from typing import Any

import keras

from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.transfer.open_box import HEADS


@keras.saving.register_keras_serializable(package="keras_vit_edu", name="OpenedViTClassifier")
class OpenedViTClassifier(ViTClassifier):
    """The class name in such a `.keras` file. It loads as a `ViTClassifier`."""

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ViTClassifier:
        """The same model as a `ViTClassifier`."""
        width, rate = config["pre_logits_dim"], config["head_dropout"]
        head = {
            "head": HEADS[config["pooling"]],
            "head_units": () if width is None else (width,),
            "head_dropout": rate if width is None else (0.0, rate),
            "head_activation": "tanh",
        }
        kept = ("name", "trainable", "backbone", "num_classes", "activation", "head_dtype")
        return ViTClassifier.from_config({**{name: config[name] for name in kept}, **head}, custom_objects)
