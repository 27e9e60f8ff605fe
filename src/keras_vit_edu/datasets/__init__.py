"""Images to train on, and batches of them."""

from keras_vit_edu.datasets.augment import AUGMENTATIONS, Augmentation, load_augmentation
from keras_vit_edu.datasets.batches import Batches
from keras_vit_edu.datasets.class_balance import class_weights, stratified_split
from keras_vit_edu.datasets.emnist import EMNIST
from keras_vit_edu.datasets.image_csv import scan_csv
from keras_vit_edu.datasets.image_dataset import ImageDataset, classes_without_validation, resized, split
from keras_vit_edu.datasets.image_file import read_image
from keras_vit_edu.datasets.image_folder import ImageFolder, scan_folder
from keras_vit_edu.datasets.load_data import load_data
from keras_vit_edu.datasets.load_images import image_files_fingerprint, load_images
from keras_vit_edu.datasets.mnist import DATASETS, DIGITS, load
from keras_vit_edu.datasets.same_different import SameDifferent, same_different, same_different_dataset
from keras_vit_edu.datasets.split_folder import SplitFolder, find_split
from keras_vit_edu.digits import DigitMeasures, check_digit, digit_from_photo, measure_digit

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "DIGITS",
    "EMNIST",
    "Augmentation",
    "Batches",
    "DigitMeasures",
    "ImageDataset",
    "ImageFolder",
    "SameDifferent",
    "SplitFolder",
    "check_digit",
    "class_weights",
    "classes_without_validation",
    "digit_from_photo",
    "find_split",
    "image_files_fingerprint",
    "load",
    "load_augmentation",
    "load_data",
    "load_images",
    "measure_digit",
    "read_image",
    "resized",
    "same_different",
    "same_different_dataset",
    "scan_csv",
    "scan_folder",
    "split",
    "stratified_split",
]
