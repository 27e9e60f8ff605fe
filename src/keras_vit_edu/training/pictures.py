"""Draw a run: its layers, its learning curves, its augmentation; and write `summary.txt`."""

import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from keras_vit_edu._install import install_command
from keras_vit_edu.datasets import ImageDataset
from keras_vit_edu.training.recipe import Recipe
from keras_vit_edu.training.run_folder import AUGMENTATION, RunFolder


def draw_layers(model: keras.Model, run: RunFolder, console: Console) -> None:
    """Draw `model.png`. If pydot or Graphviz is missing, print which one."""
    missing = []
    if importlib.util.find_spec("pydot") is None:
        missing.append(f"pydot ({install_command('cli')})")
    if shutil.which("dot") is None:
        missing.append("Graphviz's program `dot` (https://graphviz.org; apt install graphviz)")
    reason = f"it needs {' and '.join(missing)}" if missing else None
    if reason is None:
        try:
            keras.utils.plot_model(model, to_file=run / "model.png", show_shapes=True, expand_nested=True, dpi=96)
        except (ImportError, OSError, AssertionError) as error:  # a Graphviz that fails
            reason = str(error) or type(error).__name__
    if reason is not None:
        run.update(notes=[f"no model.png: {reason}"])
        console.print(f"no model.png: {' '.join(reason.split())}")


def summary(model: keras.Model) -> str:
    """The text of `model.summary()` with nested layers, 100 characters wide on any terminal."""
    lines: list[str] = []
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # Keras cuts the table off at the width of the terminal
    try:
        model.summary(expand_nested=True, line_length=100, print_fn=lambda line, line_break=True: lines.append(line))
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(lines) + "\n"


def draw_curves(
    history: Mapping[str, Sequence[float]],
    run: RunFolder,
    console: Console,
    measured: Mapping[str, float] | None = None,
    phases: Sequence[tuple[str, int]] = (),
) -> None:
    """Draw `accuracy.png` and `loss.png`. If matplotlib is missing, print how to install it.

    Args:
        history: values of each metric, one per epoch.
        run: folder for the pictures.
        console: prints what is missing.
        measured: metrics on the test images.
        phases: names of the phases and their numbers of epochs, if there are several.
    """
    try:
        from keras_vit_edu import plots
    except ImportError as error:
        console.print(f"{error} (no accuracy.png and loss.png)")
        return
    for metric in ("accuracy", "loss"):
        plots.learning_curve(history, metric, run / f"{metric}.png", (measured or {}).get(metric), phases)


def draw_augmentation(dataset: ImageDataset, recipe: Recipe, folder: str | Path) -> Path:
    """Draw the first training images, each several times, with a recipe's augmentation at full strength.

    Args:
        dataset: where the images come from.
        recipe: a recipe with an augmentation.
        folder: where to write `augmentation.png`; it is made.

    Returns:
        The file.

    Raises:
        ValueError: if the recipe has no augmentation.
        ImportError: without matplotlib.

    Examples:
        >>> import tempfile
        >>> from keras_vit_edu import datasets
        >>> recipe = Recipe(augmentation="digits")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_augmentation(datasets.load("mnist-sample"), recipe, folder).name
        'augmentation.png'
    """
    from keras_vit_edu import plots

    if recipe.augmentation is None:
        raise ValueError(f"The recipe {recipe.name} has no augmentation to show. Choose one with `augmentation`.")
    count, epochs = 10, 9
    originals, labels = dataset.x_train[:count], dataset.y_train[:count]
    rows = np.eye(len(dataset.class_names), dtype="float32")[labels]
    varied = np.stack(
        [recipe.augmentation(originals, rows, recipe.seed, epoch, 0)[0] for epoch in range(epochs)], axis=1
    )
    file = Path(folder) / AUGMENTATION
    file.parent.mkdir(parents=True, exist_ok=True)
    plots.augmentation(originals, varied, [dataset.class_names[label] for label in labels], file)
    return file
