"""Transfer learning from the Vision Transformers of keras_hub."""

from keras_vit_edu.transfer.preprocessing import Preprocessing

__all__ = ["Preprocessing"]
