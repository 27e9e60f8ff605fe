"""Training a classifier of images: Keras's own `fit`, with a run folder around it."""

from keras_vit_edu.training.run_folder import RunFolder, device
from keras_vit_edu.training.train import save_uncompiled, train

__all__ = ["RunFolder", "device", "save_uncompiled", "train"]
