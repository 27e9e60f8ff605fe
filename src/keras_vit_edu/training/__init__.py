"""Train an image classifier with Keras's `fit`, and keep the run in a folder."""

from keras_vit_edu import _backend

if not _backend.ONLY_HELP:
    from keras_vit_edu._machine import device
    from keras_vit_edu.evaluation import Evaluation, evaluate, probabilities, write_evaluation
    from keras_vit_edu.training.callbacks import TrainingFailed
    from keras_vit_edu.training.checkpoint import RunFolderError
    from keras_vit_edu.training.pictures import draw_augmentation
    from keras_vit_edu.training.recipe import Recipe
    from keras_vit_edu.training.recipes import RECIPES, load_recipe, recipe_for
    from keras_vit_edu.training.run_folder import RunFolder, default_run
    from keras_vit_edu.training.run_images import images_of_run, images_to_test, images_to_train_on
    from keras_vit_edu.training.saving import save_uncompiled
    from keras_vit_edu.training.train import train

__all__ = [
    "RECIPES",
    "Evaluation",
    "Recipe",
    "RunFolder",
    "RunFolderError",
    "TrainingFailed",
    "default_run",
    "device",
    "draw_augmentation",
    "evaluate",
    "images_of_run",
    "images_to_test",
    "images_to_train_on",
    "load_recipe",
    "probabilities",
    "recipe_for",
    "save_uncompiled",
    "train",
    "write_evaluation",
]
