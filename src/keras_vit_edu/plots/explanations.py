"""Figures of what is inside a model: maps on images, attention by head and block, distances, similarities.

Maps have the colours of "cividis": they read the same for people who do not tell red from green, and in grey print.
Signed maps have blue below 0 and orange above, and white at 0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap

from keras_vit_edu._files import printable
from keras_vit_edu.plots.sheets import CAPTION, Figure

POSITIVE = "cividis"
SIGNED = LinearSegmentedColormap.from_list("blue_white_orange", ["#2166ac", "#f7f7f7", "#d95f02"])
DPI = 120


def picture(image: np.ndarray) -> np.ndarray:
    """An image as matplotlib draws it: `(H, W)` or `(H, W, 3)` in [0, 1], whatever its range was.

    Args:
        image: `(H, W, 1)` or `(H, W, 3)`; floats in [0, 1], bytes, or the numbers that a model takes, which are
            stretched from their lowest to their highest.
    """
    array = np.asarray(image, "float64")
    low, high = array.min(), array.max()
    if np.asarray(image).dtype == np.uint8:
        array = array / 255
    elif low < 0 or high > 1:
        array = (array - low) / max(high - low, 1e-12)
    return array[..., 0] if array.shape[-1] == 1 else array


def draw_map(axes: Any, image: np.ndarray, values: np.ndarray, alpha: float = 0.6) -> Any:
    """Draw a map of patches or pixels over an image."""
    shown = picture(image)
    height, width = shown.shape[:2]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])
    largest = float(np.abs(values).max()) or 1.0
    is_signed = bool((values < 0).any())
    return axes.imshow(
        values,
        cmap=SIGNED if is_signed else POSITIVE,
        vmin=-largest if is_signed else 0,
        vmax=largest,
        alpha=alpha,
        extent=(0, width, height, 0),
        interpolation="nearest",  # a patch is a square: smoothing would show a precision that is not there
    )


def maps_side_by_side(
    images: Sequence[np.ndarray], maps: Mapping[str, np.ndarray], titles: Sequence[str], file: str | Path
) -> None:
    """Draw a row for each image: the image, and maps of several methods over it, each with a scale of its own.

    Args:
        images: `(H, W, 1)` or `(H, W, 3)` each.
        maps: for each method `(B, rows, columns)` or `(B, H, W)`.
        titles: one for each image.
        file: PNG file to write.
    """
    rows, columns = len(images), len(maps) + 1
    figure = Figure(figsize=(2.1 * columns, 2.2 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, (image, title) in enumerate(zip(images, titles, strict=True)):
        grid[row, 0].imshow(picture(image), cmap="gray", vmin=0, vmax=1)
        grid[row, 0].set(xticks=[], yticks=[])
        grid[row, 0].set_title(printable(title), fontsize=CAPTION, parse_math=False)
        for axes, (name, of_all) in zip(grid[row, 1:], maps.items(), strict=True):
            draw_map(axes, image, of_all[row])
            if row == 0:
                axes.set_title(name.replace("_", " "), fontsize=CAPTION)
    figure.savefig(file, dpi=DPI)


def heads_and_blocks(image: np.ndarray, maps: np.ndarray, file: str | Path) -> None:
    """Draw where each head of each block looks: a row for each block, the first one on top; a column for each head.

    Args:
        image: `(H, W, 1)` or `(H, W, 3)`.
        maps: `(num_blocks, h, rows, columns)`, 0 or more; each with a scale of its own.
        file: PNG file to write.
    """
    blocks, heads = maps.shape[:2]
    figure = Figure(figsize=(1.15 * heads + 0.5, 1.15 * blocks + 0.4), layout="constrained")
    grid = figure.subplots(blocks, heads, squeeze=False)
    for block, line in enumerate(grid):
        for head, axes in enumerate(line):
            draw_map(axes, image, maps[block, head])
            if block == 0:
                axes.set_title(f"head {head}", fontsize=CAPTION)
        line[0].set_ylabel(f"block {block}", fontsize=CAPTION)
    figure.savefig(file, dpi=DPI)


def attention_distances(distances: np.ndarray, file: str | Path, side: float | None = None) -> None:
    """Draw the mean attention distance of each head, block by block.

    Args:
        distances: `(num_blocks, h)`, in pixels.
        file: PNG file to write.
        side: side of the image in pixels, drawn as a line; None for no line.
    """
    blocks, heads = distances.shape
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for head in range(heads):
        axes.plot(range(blocks), distances[:, head], "o", color="tab:blue", alpha=0.6, markersize=5)
    axes.plot(range(blocks), np.nanmean(distances, axis=1), "-", color="tab:orange", label="mean over heads")
    if side is not None:
        axes.axhline(side, color="gray", linestyle="--", linewidth=1, label="side of the image")
    axes.set(xlabel="block", ylabel="mean attention distance (pixels)", xticks=range(blocks))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=DPI)


def position_similarities(similarity: np.ndarray, shape: tuple[int, int], file: str | Path) -> None:
    """Draw how alike the position of each patch is to all others: a small map in the place of each patch.

    Args:
        similarity: cosines `(N, N)`.
        shape: `(rows, columns)` of the patches.
        file: PNG file to write.
    """
    rows, columns = shape
    figure = Figure(figsize=(0.62 * columns + 1.2, 0.62 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn: Any = None
    for patch, axes in enumerate(grid.ravel()):
        drawn = axes.imshow(similarity[patch].reshape(rows, columns), cmap=SIGNED, vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=grid, label="cosine similarity", shrink=0.8)
    figure.savefig(file, dpi=DPI)


def patches_of(image: np.ndarray, shape: tuple[int, int], file: str | Path) -> None:
    """Draw an image, and beside it the patches that it is cut into, with their numbers in reading order.

    Args:
        image: `(H, W, 1)` or `(H, W, 3)`.
        shape: `(rows, columns)` of the patches.
        file: PNG file to write.
    """
    rows, columns = shape
    shown = picture(image)
    height, width = shown.shape[0] // rows, shown.shape[1] // columns
    figure = Figure(figsize=(7.4, 3.8), layout="constrained")
    halves: Any = figure.subfigures(1, 2)
    left, right = halves
    axes = left.subplots()
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=np.arange(1, columns) * width - 0.5, yticks=np.arange(1, rows) * height - 0.5)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.grid(color="tab:orange", linewidth=1)
    grid = right.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.ravel()):
        row, column = divmod(number, columns)
        part = shown[row * height : (row + 1) * height, column * width : (column + 1) * width]
        axes.imshow(part, cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        if rows * columns <= 64:
            axes.text(0.06, 0.94, str(number), transform=axes.transAxes, va="top", color="tab:orange", fontsize=8)
    figure.savefig(file, dpi=DPI)


def attention_lines(
    image: np.ndarray, scores: np.ndarray, shape: tuple[int, int], file: str | Path, strongest: int = 40
) -> None:
    """Draw lines between pairs of patches, as strong as their attention.

    Args:
        image: `(H, W, 1)` or `(H, W, 3)`.
        scores: attention between patches, `(N, N)`: row query, column key. A pair counts in both directions.
        shape: `(rows, columns)` of the patches.
        file: PNG file to write.
        strongest: how many pairs to draw.
    """
    rows, columns = shape
    shown = picture(image)
    height, width = shown.shape[0] / rows, shown.shape[1] / columns
    both = scores + scores.T
    first, second = np.triu_indices(rows * columns, 1)
    order = np.argsort(-both[first, second], kind="stable")[:strongest]
    strength = both[first, second][order]
    places = [((patch % columns + 0.5) * width, (patch // columns + 0.5) * height) for patch in range(rows * columns)]
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(0, shown.shape[1], shown.shape[0], 0))
    lines = [(places[a], places[b]) for a, b in zip(first[order], second[order], strict=True)]
    relative = strength / max(float(strength.max()), 1e-12) if len(strength) else strength
    axes.add_collection(
        LineCollection(lines, linewidths=0.5 + 4 * relative, colors="#e69f00", alpha=0.75, capstyle="round")
    )
    axes.set(xticks=np.arange(1, columns) * width, yticks=np.arange(1, rows) * height)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.grid(color="gray", linewidth=0.4)
    axes.set_title(f"the {len(lines)} pairs with the most attention", fontsize=CAPTION)
    figure.savefig(file, dpi=DPI)
