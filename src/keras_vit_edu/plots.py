"""Every figure. The only file that imports matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_vit_edu._install import install_command

try:
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise ImportError(f"Figures need matplotlib: {install_command('cli')}") from None

from keras_vit_edu._files import printable

TRAIN_COLOUR, VALIDATION_COLOUR = "tab:blue", "tab:orange"


def learning_curve(
    history: Mapping[str, Sequence[float]], metric: str, file: str | Path, test_value: float | None = None
) -> None:
    """Draw a metric over the epochs, for training and validation.

    Args:
        history: one value per epoch under `metric` and, if there was validation, under `val_<metric>`.
        metric: `"accuracy"` or `"loss"`, or another key of `history`.
        file: PNG to write.
        test_value: the metric on the test set after the last epoch, drawn as one point.
    """
    epochs = range(1, len(history[metric]) + 1)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, history[metric], color=TRAIN_COLOUR, marker=".", label="train (dropout on, mean over the epoch)")
    if f"val_{metric}" in history:
        axes.plot(epochs, history[f"val_{metric}"], color=VALIDATION_COLOUR, marker=".", label="validation")
    if test_value is not None:
        axes.plot(len(epochs), test_value, "k*", markersize=11, label=f"test, after the last epoch: {test_value:.4f}")
    axes.set(title=f"model {metric}", xlabel="epoch", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], file: str | Path) -> None:
    """Draw a confusion matrix: a row for each true class, its right answers on the diagonal.

    Args:
        matrix: counts `(num_classes, num_classes)`; row true, column predicted.
        class_names: of rows and columns.
        file: PNG to write.
    """
    count, class_names = len(class_names), [printable(name) for name in class_names]
    side = 2.2 + 0.5 * count
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # a root, so that rare mistakes are seen
    for row in range(count):
        for column in range(count):
            if matrix[row, column]:
                colour = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=9)
    long_names = max(map(len, class_names)) > 2
    axes.set_xticks(range(count), class_names, rotation=45 if long_names else 0, ha="right" if long_names else "center")
    axes.set_yticks(range(count), class_names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a class may have dollars in its name
    axes.set(title="confusion matrix", xlabel="predicted", ylabel="true")
    figure.savefig(file, dpi=120)


def mistakes(images: Sequence[np.ndarray], titles: Sequence[str], file: str | Path) -> None:
    """Draw images in a grid, a title over each.

    Args:
        images: uint8 `(H, W, 1)` or `(H, W, 3)`, of any sizes; there may be none.
        titles: one for each.
        file: PNG to write.
    """
    columns = min(max(len(images), 1), 6)
    rows = max(-(-len(images) // columns), 1)
    figure = Figure(figsize=(1.9 * columns, 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, title in zip(grid, images, titles, strict=False):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(_lines(title), fontsize=9, parse_math=False)  # a file's name may have dollars in it
    if not len(images):
        grid[0].text(0.5, 0.5, "no mistakes", ha="center", va="center")
    figure.savefig(file, dpi=120)


def augmentation(images: np.ndarray, varied: np.ndarray, titles: Sequence[str], file: str | Path) -> None:
    """Draw images in the first column, and what augmentation makes of each beside it.

    Args:
        images: `(n, H, W, 1)` or `(n, H, W, 3)`, uint8.
        varied: `(n, m, H, W, C)`, float in [0, 1].
        titles: one for each image.
        file: PNG to write.
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
        axes.set_title(f"epoch {epoch}" if epoch else "as it is", fontsize=9)
    figure.savefig(file, dpi=120)


def classified(
    titles: Sequence[str],
    given: Sequence[np.ndarray],
    seen: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
    class_names: Sequence[str],
    file: str | Path,
) -> None:
    """Draw a row for each picture: what was given, what the model saw, and how probable it finds each class.

    Args:
        titles: one for each picture.
        given: uint8 `(H, W, 3)`, of any sizes.
        seen: float in [0, 1], `(28, 28, 1)`.
        probabilities: `(num_classes,)`.
        class_names: what the classes stand for.
        file: PNG to write.
    """
    rows = len(titles)
    figure = Figure(figsize=(7.5, 2 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 3, squeeze=False, width_ratios=(1, 1, 1.6))
    for (left, middle, right), title, image, digit, shares in zip(
        grid, titles, given, seen, probabilities, strict=True
    ):
        left.imshow(image)
        left.set_title(printable(title), fontsize=9, parse_math=False)  # a file's name may have dollars in it
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


def _lines(text: str) -> str:
    """A text of several lines, of which each is safe to show."""
    return "\n".join(map(printable, text.split("\n")))
