"""Recipes by name, and recipes from files."""

from pathlib import Path

from keras_vit_edu import _checks, _files
from keras_vit_edu.datasets import AUGMENTATIONS
from keras_vit_edu.training.recipe import Recipe

# How to train a small transformer on little data. Augmentation and regularization: Steiner et al. 2022 ("How to train
# your ViT?", arXiv 2106.10270). Optimizer: Hassani et al. 2021. The average of the weights (Polyak and Juditsky 1992)
# removes the noise of the last steps. In the last epochs images are nearly clean, like the test images.
SMALL_DATA = Recipe(
    name="small-data",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_epochs=3,
    final_learning_rate=1e-6,
    weight_decay=0.05,
    no_weight_decay=("bias", "norm", "position_embedding"),
    label_smoothing=0.05,
    global_clipnorm=1.0,
    ema=0.999,
    epochs=50,
    augmentation=AUGMENTATIONS["digits"],
    augmentation_final_epochs=5,
    augmentation_final_strength=0.3,
)
HYBRID = SMALL_DATA.replace(
    name="hybrid", learning_rate=2e-3, warmup_epochs=2, epochs=36, batch_size=128, validation_split=0.05
)

RECIPES = {
    "program-p": Recipe(),
    "program-p-sample": Recipe(name="program-p-sample", epochs=20),  # minutes; for the bundled sample
    "pure": HYBRID.replace(name="pure", learning_rate=1.5e-3),
    "hybrid": HYBRID,
    "fashion-hybrid": HYBRID.replace(
        name="fashion-hybrid", epochs=32, augmentation=AUGMENTATIONS["clothes"], augmentation_final_strength=0.5
    ),
    "cnn": SMALL_DATA.replace(
        name="cnn", no_weight_decay=("bias",), epochs=30, augmentation="none", augmentation_final_epochs=0.0
    ),
    "cnn-augmented": HYBRID.replace(name="cnn-augmented", no_weight_decay=("bias",)),
}


def recipe_for(dataset: str) -> Recipe:
    """The course's recipe for a dataset: `program-p`, or `program-p-sample` for the sample in the package.

    Args:
        dataset: the name of an `ImageDataset`.

    Returns:
        A `Recipe`.

    Examples:
        >>> recipe_for("mnist-sample").epochs, recipe_for("mnist").epochs
        (20, 60)
    """
    return RECIPES["program-p-sample" if dataset == "mnist-sample" else "program-p"]


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A recipe by its name, or from a JSON file.

    Args:
        name_or_file: a name in `RECIPES`, or the path of a JSON file with fields of a `Recipe`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is neither, or the file is no JSON or no recipe.

    Examples:
        >>> load_recipe("program-p").optimizer
        'adamw'
    """
    if str(name_or_file) in RECIPES:
        return RECIPES[str(name_or_file)]
    file = Path(name_or_file)
    if not file.is_file():
        hint = _checks.did_you_mean(str(name_or_file), RECIPES) or f"There are {', '.join(RECIPES)}."
        raise ValueError(f"There is no recipe {str(name_or_file)!r}, and no such file. {hint}")
    try:
        values = _files.read_json(file)
    except ValueError as error:
        raise ValueError(f"The recipe cannot be read. {error}") from None
    try:
        return Recipe.from_json({"name": file.stem, **values} if isinstance(values, dict) else values)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
