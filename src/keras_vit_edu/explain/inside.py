"""Look inside a model once: what its attention, its tokens and its logits are for some images.

Works on every Keras model in which this library's layers are found, since it is the layers that tell: see
`layers.hooks`.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._keras_internals import layers_within
from keras_vit_edu._types import Tensor
from keras_vit_edu.explain._run import run
from keras_vit_edu.layers import MyMultiHeadAttention, PatchEncoder, SequencePooling, TransformerBlock
from keras_vit_edu.layers.hooks import hooked


@dataclass(frozen=True)
class Grid:
    """Where the tokens of a model lie in its images.

    Attributes:
        rows: number of patches in a column of patches.
        columns: number of patches in a row of patches.
        num_prefix_tokens: P, the number of tokens before the patches.
    """

    rows: int
    columns: int
    num_prefix_tokens: int

    @property
    def num_patches(self) -> int:
        """N, the number of patches."""
        return self.rows * self.columns

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens: P + N."""
        return self.num_prefix_tokens + self.num_patches

    def as_map(self, of_patches: np.ndarray) -> np.ndarray:
        """Arrange a value for each patch as a map.

        Args:
            of_patches: `(..., N)`.

        Returns:
            `(..., rows, columns)`.
        """
        return of_patches.reshape(*of_patches.shape[:-1], self.rows, self.columns)


@dataclass(frozen=True, eq=False)
class Inside:
    """What a model computes on the way from images to its output.

    Attributes:
        output: the model's output, float32; logits `(B, num_classes)` for a classifier.
        scores: for each layer of self-attention, in the order they run, the attention scores, float32 `(B, h, T, T)`;
            each row sums to 1.
        tokens: float32 `(B, T, D)`: the tokens that enter the first block, then those after each block. Empty for a
            model without `PatchEncoder` and `TransformerBlock`.
        final: float32 `(B, T, D)`: the tokens after the normalisation that follows the last block, as the head reads
            them. None where no `LayerNormalization` of a `ViTBackbone` follows.
        pooling: float32 `(B, N)`: how `SequencePooling` weighs the patches; None without it.
        grid: where the tokens lie in the image.
    """

    output: np.ndarray
    scores: list[np.ndarray]
    tokens: list[np.ndarray]
    final: np.ndarray | None
    pooling: np.ndarray | None
    grid: Grid


def look_inside(model: keras.Model, images: np.ndarray) -> Inside:
    """Call a model once, without dropout, and keep what its layers computed.

    Args:
        model: a Keras model in which layers of this library are found: functional, nested or subclassed.
        images: as the model takes them, float `(B, H, W, C)`, or `(B, C, H, W)` for `"channels_first"`.

    Returns:
        The output, the attention scores and the tokens. The output is that of an ordinary call, up to rounding.

    Raises:
        ValueError: if the images do not fit the model, the model has no `MyMultiHeadAttention` over the patches of one
            grid, or its weights give NaN.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> inside = look_inside(ViTClassifier.from_preset("vit_mnist_pure"), np.zeros((1, 28, 28, 1), "float32"))
        >>> len(inside.scores), inside.scores[0].shape, inside.grid.rows, inside.grid.columns
        (6, (1, 8, 49, 49), 7, 7)
    """
    images = checked_images(model, images)
    check_has_attention(model)

    def forward(images: Tensor) -> dict[str, Any]:
        seen = Recorder()
        with hooked(seen):
            output = model(images, training=False)
        return {"output": output, **vars(seen)}

    found = run(model, forward, [images], key="look_inside")
    grid = _grid(model, found)
    scores = [entry for entry in found["scores"] if entry.shape[-2:] == (grid.num_tokens,) * 2]
    if not scores:
        raise ValueError(
            f"{model.name} has no self-attention over its {grid.num_prefix_tokens} + {grid.num_patches} tokens. "
            f"Received: attention scores of shape {', '.join(str(entry.shape) for entry in found['scores'])}"
        )
    tokens = [entry for entry in found["tokens"] if entry.shape[1] == grid.num_tokens]
    final = [entry for entry in found["final"] if entry.shape[1:2] == (grid.num_tokens,)]
    pooling = found["pooling"][-1] if found["pooling"] else None
    if not np.isfinite(found["output"]).all():
        raise ValueError(f"The output of {model.name} is not finite: its weights or the images hold NaN or infinity.")
    return Inside(found["output"], scores, tokens, final[0] if final else None, pooling, grid)


class Recorder:
    """A hook that keeps what it sees, and changes nothing."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.final: list[Tensor] = []  # what is normalised after the last block
        self.pooling: list[Tensor] = []
        self.grids: list[Any] = []  # rows and columns of each layer that cuts images
        self.encoders: list[Any] = []  # patches, prefix tokens, rows and columns (0: not known) of each `PatchEncoder`

    def __call__(self, layer: keras.layers.Layer, name: str, tensor: Tensor) -> Tensor:
        if name == "images":
            cutter: Any = layer if hasattr(layer, "grid_size") else layer.patches
            self.grids.append(np.array([side or 0 for side in cutter.grid_size(tensor.shape)]))
        elif isinstance(layer, PatchEncoder):
            self.encoders.append(np.array([layer.num_patches, layer.num_prefix_tokens, *(layer.grid_size or (0, 0))]))
            self.tokens.append(tensor)
        elif isinstance(layer, TransformerBlock):
            self.tokens.append(tensor)
            self.final = []
        elif name == "normalised":
            self.final.append(tensor)
        elif isinstance(layer, SequencePooling):
            self.pooling.append(tensor)
        elif isinstance(layer, MyMultiHeadAttention) and name == "scores":
            self.scores.append(tensor)
        return tensor


def _grid(model: keras.Model, found: dict[str, Any]) -> Grid:
    """The grid of the patches, from what a `Recorder` kept."""
    cut = {(int(rows), int(columns)) for rows, columns in found["grids"] if rows and columns}
    grids = set()
    for num_patches, prefix, rows, columns in (map(int, entry) for entry in found["encoders"]):
        fitting = {(rows, columns)} if rows else {grid for grid in cut if grid[0] * grid[1] == num_patches}
        grids |= {Grid(*grid, prefix) for grid in fitting}
    if not found["encoders"] and found["scores"]:  # positions of a user's own
        length = found["scores"][0].shape[-1]
        grids = {Grid(*grid, length - grid[0] * grid[1]) for grid in cut if grid[0] * grid[1] <= length}
    if len(grids) != 1:
        what = "patches of several grids" if grids else "no grid of patches that is known"
        raise ValueError(
            f"To show where a model looks, its patches must form one grid of rows and columns. {model.name} has {what}."
            " (`PatchEncoder(grid_size=(rows, columns))` says which.)"
        )
    return grids.pop()


def is_channels_first(model: Any) -> bool:
    """Whether a model takes images `(B, C, H, W)`. Only models of this library say so."""
    return getattr(getattr(model, "backbone", model), "data_format", None) == "channels_first"


def check_has_attention(model: keras.Model) -> None:
    """Raise a ValueError unless a model holds a `MyMultiHeadAttention`."""
    if not any(isinstance(layer, MyMultiHeadAttention) for layer in layers_within(model)):
        raise ValueError(
            "Only the attention of `MyMultiHeadAttention` can be shown (in `TransformerBlock`, `ViTBackbone`, "
            "`ViTClassifier`, or a ViT or DeiT that `transfer.open_vit` opened). "
            f"Received: {model.name}, a {type(model).__name__} without it"
        )


def checked_images(model: keras.Model, images: Any) -> np.ndarray:
    """Images as float32 `(B, ...)` that fit the model.

    Raises:
        ValueError: if they do not.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"The model must be a `keras.Model`. Received: {type(model).__name__}")
    try:
        array = ops.convert_to_numpy(images).astype("float32")
    except (TypeError, ValueError):
        raise ValueError(f"`images` must be an array of numbers. Received: {type(images).__name__}") from None
    expected = shapes_of(model).image if getattr(model, "inputs", None) else array.shape[1:]
    fits = len(expected) == array.ndim - 1 and all(
        side is None or side == given for side, given in zip(expected, array.shape[1:], strict=True)
    )
    if array.ndim != 4 or not len(array) or not fits:
        wanted = tuple(expected) if len(expected) == 3 else ("H", "W", "C")
        raise ValueError(
            f"`images` must be a batch (B, {', '.join(map(str, wanted))}), as {model.name} takes them. "
            f"Received: an array of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("`images` must be finite. Received: NaN or infinity")
    return array
