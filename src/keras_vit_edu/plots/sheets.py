"""Figures of training, evaluation and classification."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure  # not pyplot: no window, no global state
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from keras_vit_edu._files import printable
from keras_vit_edu.captions import Fits, between, shortened

TRAIN_COLOUR, VALIDATION_COLOUR = "tab:blue", "tab:orange"
CAPTION = 9  # points
SMALL = 64  # pixels per side of an image for a small cell


def learning_curve(
    history: Mapping[str, Sequence[float]],
    metric: str,
    file: str | Path,
    test_value: float | None = None,
    phases: Sequence[tuple[str, int]] = (),
) -> None:
    """Draw a metric over the epochs, for training and validation.

    Args:
        history: one value per epoch under `metric` and, if there was validation, under `val_<metric>`.
        metric: `"accuracy"` or `"loss"`, or another key of `history`.
        file: PNG file to write.
        test_value: the metric on the test set after the last epoch, drawn as one point.
        phases: name and number of epochs of each phase; a vertical line separates two phases.
    """
    epochs = range(1, len(history[metric]) + 1)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, history[metric], color=TRAIN_COLOUR, marker=".", label="train (dropout on, mean over the epoch)")
    if f"val_{metric}" in history:
        axes.plot(epochs, history[f"val_{metric}"], color=VALIDATION_COLOUR, marker=".", label="validation")
    if test_value is not None:
        axes.plot(len(epochs), test_value, "k*", markersize=11, label=f"test, after the last epoch: {test_value:.4f}")
    axes.set(xlabel="epoch", ylabel=metric)
    axes.set_title(f"model {metric}", pad=22 if len(phases) > 1 else None)
    _draw_phases(axes, phases)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def _draw_phases(axes: Any, phases: Sequence[tuple[str, int]]) -> None:
    """Draw the name of each phase above its epochs, and a line between phases; nothing for a single phase."""
    if len(phases) < 2:
        return
    before = 0
    for name, epochs in phases:
        if before:
            axes.axvline(before + 0.5, color="gray", linestyle="--", linewidth=1)
        middle = before + (epochs + 1) / 2
        axes.text(middle, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", color="dimgray")
        before += epochs
    axes.set_xlim(0.5, before + 0.5)


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], file: str | Path) -> None:
    """Draw a confusion matrix: a row for each true class, correct answers on the diagonal.

    Args:
        matrix: counts `(num_classes, num_classes)`; rows are true classes, columns predicted ones.
        class_names: names of the rows and columns.
        file: PNG file to write.
    """
    count, class_names = len(class_names), [printable(name) for name in class_names]
    side = 2.2 + 0.5 * count
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the square root makes rare mistakes visible
    for row in range(count):
        for column in range(count):
            if matrix[row, column]:
                colour = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=9)
    long_names = max(map(len, class_names)) > 2
    axes.set_xticks(range(count), class_names, rotation=45 if long_names else 0, ha="right" if long_names else "center")
    axes.set_yticks(range(count), class_names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a class name may contain dollar signs
    axes.set(title="confusion matrix", xlabel="predicted", ylabel="true")
    figure.savefig(file, dpi=120)


def mistakes(images: Sequence[np.ndarray], captions: Sequence[Callable[[Fits], str]], file: str | Path) -> None:
    """Draw images in a grid, each with a caption.

    Args:
        images: uint8 `(H, W, 1)` or `(H, W, 3)`, of any sizes; may be empty.
        captions: for each image a function that gets a test of width and returns a text that passes it.
        file: PNG file to write.
    """
    are_small = all(max(image.shape) <= SMALL for image in images)
    cell, most = (1.9, 6) if are_small else (2.7, 4)  # inches; columns
    columns = min(max(len(images), 1), most)
    rows = max(-(-len(images) // columns), 1)
    figure = Figure(figsize=(cell * columns, (cell + 0.4) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        # A file name may contain dollar signs.
        axes.set_title(caption(_fits(cell - 0.15, CAPTION)), fontsize=CAPTION, parse_math=False)
    if not len(images):
        grid[0].text(0.5, 0.5, "no mistakes", ha="center", va="center")
    figure.savefig(file, dpi=120)


def _fits(inches: float, font_size: float) -> Fits:
    """A test whether a text fits into this width, in the font of captions."""
    font = FontProperties(size=font_size)
    renderer = RendererAgg(1, 1, 72)  # a pixel is a point
    return lambda text: renderer.get_text_width_height_descent(text, font, ismath=False)[0] <= inches * 72


def augmentation(images: np.ndarray, varied: np.ndarray, titles: Sequence[str], file: str | Path) -> None:
    """Draw images in the first column, and their augmented versions beside them.

    Args:
        images: `(n, H, W, 1)` or `(n, H, W, 3)`, uint8.
        varied: `(n, m, H, W, C)`, float in [0, 1].
        titles: one for each image.
        file: PNG file to write.
    """
    rows, columns = varied.shape[0], varied.shape[1] + 1
    figure = Figure(figsize=(1.1 * columns + 0.6, 1.1 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, line in enumerate(grid):
        for axes, image in zip(line, [images[i] / 255, *varied[i]], strict=True):
            axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(printable(titles[i]), fontsize=9, parse_math=False)
    for epoch, axes in enumerate(grid[0]):
        axes.set_title(f"epoch {epoch}" if epoch else "original", fontsize=9)
    figure.savefig(file, dpi=120)


def classified(
    titles: Sequence[str],
    given: Sequence[np.ndarray],
    seen: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    class_names: Sequence[str],
    file: str | Path,
) -> None:
    """Draw a row for each picture: the picture, what the model saw, and the probability of each class.

    Args:
        titles: one for each picture.
        given: the pictures, uint8 `(H, W, 3)`, of any sizes.
        seen: what the model saw, float in [0, 1], `(28, 28, 1)`.
        probabilities: for each picture `(num_classes,)`.
        class_names: names of the classes.
        file: PNG file to write.
    """
    rows = len(titles)
    figure = Figure(figsize=(7.5, 2 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False, width_ratios=(1, 1, 1.6))
    for (left, middle, right), title, image, digit, shares in zip(
        grid, titles, given, seen, probabilities, strict=True
    ):
        left.imshow(image)
        # A file name may contain dollar signs.
        left.set_title(shortened(title, _fits(1.8, CAPTION)), fontsize=CAPTION, parse_math=False)
        middle.imshow(digit[..., 0], cmap="gray", vmin=0, vmax=1)
        for axes in (left, middle):
            axes.set(xticks=[], yticks=[])
        best = int(np.argmax(shares))
        bars = right.bar(range(len(class_names)), shares, color="lightgray")
        bars[best].set_color(TRAIN_COLOUR)
        right.set_xticks(range(len(class_names)), class_names)
        right.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        right.set_title(f"{class_names[best]}: {shares[best]:.1%}", fontsize=9)
    grid[0, 1].set_title("what the model saw", fontsize=9)
    figure.savefig(file, dpi=120)


def classified_photographs(
    names: Sequence[str],
    given: Sequence[np.ndarray],
    seen: Sequence[np.ndarray],
    best: Sequence[Sequence[tuple[str, float]]],
    file: str | Path,
) -> None:
    """Draw a row for each photograph: the photograph, what the model saw, and the most probable classes.

    Args:
        names: file names.
        given: the photographs, uint8 `(H, W, 3)`, of any sizes.
        seen: what the model saw, uint8 `(h, w, 3)`, cropped and resized.
        best: for each photograph classes and their probabilities, the most probable first.
        file: PNG file to write.
    """
    rows, bars = len(names), max(map(len, best))
    width, left = 10.0, 2.6  # inches: the sheet, a picture
    figure = Figure(figsize=(width, max(2.1, 0.27 * bars + 0.5) * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False, width_ratios=(1, 1, width / left - 2))
    for (first, second, third), name, image, view, classes in zip(grid, names, given, seen, best, strict=True):
        first.imshow(image)
        first.set_title(shortened(name, _fits(left - 0.2, CAPTION)), fontsize=CAPTION, parse_math=False)
        second.imshow(view)
        for axes in (first, second):
            axes.set(xticks=[], yticks=[])
        shares = [probability for _, probability in classes]
        drawn = third.barh(range(len(classes)), shares, height=0.86, color="lightgray")
        drawn[0].set_color("lightskyblue")
        fits = _fits(width - 2 * left - 0.5, CAPTION)
        for place, (label, probability) in enumerate(classes):
            text = between("", label, f" ({probability:.1%})", fits)
            third.text(0.01, place, text, va="center", fontsize=CAPTION, parse_math=False)
        third.set(xlim=(0, 1), ylim=(bars - 0.5, -0.5), xticks=(0, 0.5, 1), yticks=[])
        third.tick_params(labelsize=CAPTION - 1)
    grid[0, 1].set_title("what the model saw", fontsize=CAPTION)
    grid[0, 2].set_title("probability of each class", fontsize=CAPTION)
    figure.savefig(file, dpi=120)
