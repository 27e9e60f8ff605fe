"""Images to learn from, and the batches that a training step takes."""

from keras_vit_edu.datasets.augment import AUGMENTATIONS, Augmentation, load_augmentation
from keras_vit_edu.datasets.batches import Batches
from keras_vit_edu.datasets.mnist import DATASETS, ImageDataset, load, split

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Augmentation",
    "Batches",
    "ImageDataset",
    "load",
    "load_augmentation",
    "split",
]
