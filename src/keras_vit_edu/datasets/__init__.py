"""Images to learn from, and the batches that a training step takes."""

from keras_vit_edu.datasets.augment import AUGMENTATIONS, Augmentation, load_augmentation
from keras_vit_edu.datasets.batches import Batches
from keras_vit_edu.datasets.class_balance import class_weights, stratified_split
from keras_vit_edu.datasets.digit_photo import digit_from_photo
from keras_vit_edu.datasets.emnist import EMNIST
from keras_vit_edu.datasets.image_dataset import ImageDataset, resized, split
from keras_vit_edu.datasets.image_file import read_image
from keras_vit_edu.datasets.image_folder import ImageFolder, scan_folder
from keras_vit_edu.datasets.load_data import load_data
from keras_vit_edu.datasets.load_images import image_files_fingerprint, load_images
from keras_vit_edu.datasets.mnist import DATASETS, DIGITS, load

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "DIGITS",
    "EMNIST",
    "Augmentation",
    "Batches",
    "ImageDataset",
    "ImageFolder",
    "class_weights",
    "digit_from_photo",
    "image_files_fingerprint",
    "load",
    "load_augmentation",
    "load_data",
    "load_images",
    "read_image",
    "resized",
    "scan_folder",
    "split",
    "stratified_split",
]
