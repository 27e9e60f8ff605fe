"""The layers again, in float64 NumPy, straight from the equations: the reference for every backend's numbers.

Nothing here imports Keras or our layers, and nothing here is fast. The pieces (dense layers, norms, activations) are in
`oracle_pieces.py`. Weights come as a dictionary of arrays by variable path, `{variable.path: array}`, relative to the
layer: `"q_dense/kernel"` for attention, `"transformer_block_0/attention/q_dense/kernel"` for a model. `within` gives a
child its part.

Shapes: `B` batch, `H W C` image, `N` (or `T`, `S`) tokens, `D` width, `h` heads, `d` size of one head, `dv` of its
values.

>>> two_tokens = np.zeros((1, 1, 2, 4))
>>> attention_weights(two_tokens, two_tokens, mask=np.tri(2, dtype=bool)).tolist()
[[[[1.0, 0.0], [0.5, 0.5]]]]
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit_edu.parity.oracle_pieces import (
    ACTIVATIONS,
    Weights,
    dense,
    dropout,
    float64,
    gelu,
    gradient,
    layer_norm,
    softmax,
    within,
)

__all__ = [
    "ACTIVATIONS",
    "attention_weights",
    "cnn_classifier",
    "combined_mask",
    "conv_stem",
    "convolution",
    "dense",
    "dropout",
    "gelu",
    "gradient",
    "largest_of_squares",
    "layer_norm",
    "max_pooling",
    "mlp",
    "multi_head_attention",
    "patch_encoder",
    "patches",
    "relative_position_bias",
    "sequence_pooling",
    "shifted_patches",
    "softmax",
    "transformer_block",
    "vit_backbone",
    "vit_classifier",
    "within",
]

# Attention. -----------------------------------------------------------------------------------------------------------


def attention_weights(
    query: np.ndarray, key: np.ndarray, mask: np.ndarray | None = None, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    """softmax(Q K^T / sqrt(d) + bias), over the keys that the mask allows; uniform over all keys if it allows none.

    Args:
        query: `(B, h, T, d)`.
        key: `(B, h, S, d)`.
        mask: boolean, broadcastable to `(B, h, T, S)`; True where the query may attend.
        bias: broadcastable to `(B, h, T, S)`.

    Returns:
        `(B, h, T, S)`.
    """
    scores = float64(query) @ float64(key).swapaxes(-2, -1) / math.sqrt(query.shape[-1]) + bias  # (B, h, T, S)
    if mask is not None:
        mask = np.broadcast_to(mask, scores.shape)
        scores = np.where(mask, scores, -np.inf)
        scores = np.where(mask.any(axis=-1, keepdims=True), scores, 0.0)
    return softmax(scores)


def combined_mask(
    shape: tuple[int, int, int, int],
    query_mask: np.ndarray | None = None,
    value_mask: np.ndarray | None = None,
    key_mask: np.ndarray | None = None,
    attention_mask: np.ndarray | None = None,
    use_causal_mask: bool = False,
) -> np.ndarray:
    """All masks of `MyMultiHeadAttention` in one of `shape`, `(B, h, T, S)`; True where all are True."""
    mask = np.ones(shape, bool)
    if query_mask is not None:
        mask = mask & np.asarray(query_mask, bool)[:, None, :, None]  # (B, 1, T, 1)
    if value_mask is not None:
        mask = mask & np.asarray(value_mask, bool)[:, None, None, :]  # (B, 1, 1, S)
    if key_mask is not None:
        mask = mask & np.asarray(key_mask, bool)[:, None, None, :]
    if attention_mask is not None:
        attention_mask = np.asarray(attention_mask, bool)
        if attention_mask.ndim == 3:
            attention_mask = attention_mask[:, None]  # (B, 1, T, S)
        mask = mask & attention_mask
    if use_causal_mask:
        mask = mask & np.tri(*shape[2:], dtype=bool)  # (T, S): key s up to query t
    return mask


def multi_head_attention(
    weights: Weights,
    query: np.ndarray,
    value: np.ndarray,
    key: np.ndarray | None = None,
    *,
    num_heads: int,
    keep: np.ndarray | None = None,
    rate: float = 0.0,
    attention_bias: np.ndarray | float = 0.0,
    **masks: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """`MyMultiHeadAttention`: head = softmax(Q K^T / sqrt(d) + bias) V; output = concatenate(heads) W_out + b_out.

    Args:
        weights: of `q_dense`, `k_dense`, `v_dense`, `out_dense`.
        query: `(B, T, Dq)`.
        value: `(B, S, Dv)`.
        key: `(B, S, Dk)`; None for `value`.
        num_heads: h.
        keep: `(B, h, T, S)`, which scores dropout keeps; None for no dropout.
        rate: of the dropout.
        attention_bias: broadcastable to `(B, h, T, S)`.
        **masks: of `combined_mask`.

    Returns:
        Output `(B, T, D)` and scores, before dropout, `(B, h, T, S)`.
    """
    key = value if key is None else key
    q = _heads(dense(within(weights, "q_dense"), query), num_heads)  # (B, h, T, d)
    k = _heads(dense(within(weights, "k_dense"), key), num_heads)  # (B, h, S, d)
    v = _heads(dense(within(weights, "v_dense"), value), num_heads)  # (B, h, S, dv)
    mask = combined_mask((*q.shape[:3], k.shape[2]), **masks)
    scores = attention_weights(q, k, mask, attention_bias)  # (B, h, T, S)
    kept = scores if keep is None else dropout(scores, keep, rate)
    heads = [kept[:, i] @ v[:, i] for i in range(num_heads)]  # each (B, T, dv)
    return dense(within(weights, "out_dense"), np.concatenate(heads, axis=-1)), scores


def _heads(x: np.ndarray, num_heads: int) -> np.ndarray:
    """`(B, T, h * d)` to `(B, h, T, d)`: head i has the i-th of h equal slices."""
    return np.stack(np.split(x, num_heads, axis=-1), axis=1)


def relative_position_bias(table: np.ndarray, grid: tuple[int, int], num_tokens: int) -> np.ndarray:
    """`RelativePositionBias`: `(h, T, T)`; bias[i, query, key] = table[i, place of key - place of query].

    Args:
        table: `(h, (2 rows - 1) (2 columns - 1))`.
        grid: `(rows, columns)` of the patches.
        num_tokens: T; prefix tokens come first, and have bias 0.
    """
    rows, columns = grid
    by_offset = float64(table).reshape(-1, 2 * rows - 1, 2 * columns - 1)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    bias = np.zeros((len(table), num_tokens, num_tokens))
    first = num_tokens - len(places)
    for q, (query_row, query_column) in enumerate(places, first):
        for k, (key_row, key_column) in enumerate(places, first):
            offset = key_row - query_row + rows - 1, key_column - query_column + columns - 1
            bias[:, q, k] = by_offset[:, *offset]
    return bias


# The block. -----------------------------------------------------------------------------------------------------------


def mlp(
    weights: Weights, x: np.ndarray, activation: str | None = "gelu", output_activation: str | None = None
) -> np.ndarray:
    """The block's MLP: `mlp_hidden`, activation, `mlp_output`, activation. `(B, N, D)` to `(B, N, D)`."""
    hidden = ACTIVATIONS[activation](dense(within(weights, "mlp_hidden"), x))  # (B, N, mlp_dim)
    return ACTIVATIONS[output_activation](dense(within(weights, "mlp_output"), hidden))


def transformer_block(
    weights: Weights,
    tokens: np.ndarray,
    *,
    num_heads: int,
    activation: str | None = "gelu",
    output_activation: str | None = None,
    epsilon: float = 1e-6,
    keep_branches: tuple[np.ndarray, np.ndarray] | None = None,
    stochastic_depth: float = 0.0,
    grid_size: tuple[int, int] | None = None,
    **masks: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """`TransformerBlock`: x = x + attention(norm(x)), then x = x + mlp(norm(x)).

    Args:
        weights: of the block.
        tokens: `(B, N, D)`.
        num_heads: h.
        activation: after the first Dense of the MLP.
        output_activation: after the second one.
        epsilon: of the normalisations.
        keep_branches: which images keep the attention branch, and which the MLP, `(B, 1, 1)` each; None for all.
        stochastic_depth: the probability with which they were drawn.
        grid_size: `(rows, columns)` of the patches, if the block has a `position_bias`.
        **masks: of `multi_head_attention`.

    Returns:
        Tokens `(B, N, D)` and attention scores `(B, h, N, N)`.
    """
    tokens = float64(tokens)
    normalised = layer_norm(within(weights, "attention_norm"), tokens, epsilon)
    attention = within(weights, "attention")
    if grid_size is not None:
        masks["attention_bias"] = relative_position_bias(weights["position_bias/table"], grid_size, tokens.shape[1])
    attended, scores = multi_head_attention(attention, normalised, normalised, num_heads=num_heads, **masks)
    if keep_branches is not None:
        attended = dropout(attended, keep_branches[0], stochastic_depth)
    tokens = tokens + attended
    normalised = layer_norm(within(weights, "mlp_norm"), tokens, epsilon)
    output = mlp(weights, normalised, activation, output_activation)
    if keep_branches is not None:
        output = dropout(output, keep_branches[1], stochastic_depth)
    return tokens + output, scores


# The model. -----------------------------------------------------------------------------------------------------------


def patches(images: np.ndarray, patch_size: int | Sequence[int]) -> np.ndarray:
    """`Patches`: `(B, H, W, C)` to `(B, N, ph * pw * C)`, in reading order."""
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    cut = [
        images[:, top : top + height, left : left + width].reshape(len(images), -1)
        for top in range(0, images.shape[1], height)
        for left in range(0, images.shape[2], width)
    ]
    return np.stack(cut, axis=1)


def shifted_patches(images: np.ndarray, patch_size: int | Sequence[int]) -> np.ndarray:
    """`ShiftedPatches`: patches of the image with four copies, shifted half a patch to the corners, as channels."""
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    views = [images]
    for down in (-(height // 2), height // 2):
        for right in (-(width // 2), width // 2):
            moved = np.zeros_like(images)  # moved[i, j] = image[i - down, j - right]
            for i in range(images.shape[1]):
                for j in range(images.shape[2]):
                    if 0 <= i - down < images.shape[1] and 0 <= j - right < images.shape[2]:
                        moved[:, i, j] = images[:, i - down, j - right]
            views.append(moved)
    return patches(np.concatenate(views, axis=-1), patch_size)


def convolution(weights: Weights, images: np.ndarray, stride: int = 1) -> np.ndarray:
    """A 3x3 convolution: `(B, H, W, C)` to `(B, ceil(H / stride), ceil(W / stride), filters)`.

    y[i, j] = b + sum over u, v of x[i * stride + u - 1, j * stride + v - 1] W[u, v], with zeros around the image.
    """
    kernel = float64(weights["kernel"])  # (3, 3, C, filters)
    padded = np.pad(float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = range(0, images.shape[1], stride), range(0, images.shape[2], stride)
    windows = np.stack(
        [[padded[:, i : i + 3, j : j + 3] for j in columns] for i in rows]
    )  # (rows, columns, B, 3, 3, C)
    return np.tensordot(windows, kernel, axes=3).transpose(2, 0, 1, 3) + float64(weights.get("bias", 0))


def conv_stem(
    weights: Weights,
    images: np.ndarray,
    strides: Sequence[int],
    activation: str | None = "gelu",
    pools: Sequence[int] | None = None,
) -> np.ndarray:
    """`ConvStem`: x = max_pooling(activation(convolution(x))), once per stride. `(B, H, W, C)` to `(B, N, filters)`."""
    for i, stride in enumerate(strides):
        images = ACTIVATIONS[activation](convolution(within(weights, f"convolution_{i}"), images, stride))
        images = largest_of_squares(images, 1 if pools is None else pools[i])
    return images.reshape(len(images), -1, images.shape[-1])


def largest_of_squares(images: np.ndarray, side: int) -> np.ndarray:
    """Max pooling with window and stride `side`; the image is padded to a multiple of it, half on each side."""
    before = [-length % side // 2 for length in images.shape[1:3]]
    after = [-length % side - first for length, first in zip(images.shape[1:3], before, strict=True)]
    padding = ((0, 0), *zip(before, after, strict=True), (0, 0))
    images = np.pad(images, padding, constant_values=-np.inf)  # (B, rows * side, columns * side, C)
    batch, height, width, channels = images.shape
    squares = images.reshape(batch, height // side, side, width // side, side, channels)
    return squares.max(axis=(2, 4))


def sequence_pooling(weights: Weights, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`SequencePooling`: softmax(x w)^T x. `(B, N, D)` to pooled `(B, D)` and scores `(B, N)`."""
    scores = softmax(dense(within(weights, "score_dense"), tokens)[..., 0])
    return np.stack([weights @ tokens for weights, tokens in zip(scores, float64(tokens), strict=True)]), scores


def patch_encoder(weights: Weights, patches: np.ndarray) -> np.ndarray:
    """`PatchEncoder`: concatenate(prefix_tokens, patches W + b) + position_embedding."""
    tokens = dense(within(weights, "projection"), patches)  # (B, N, D)
    if "prefix_tokens" in weights:
        prefix = [float64(weights["prefix_tokens"])] * len(tokens)
        tokens = np.concatenate([prefix, tokens], axis=1)
    return tokens + float64(weights["position_embedding"])


def vit_backbone(weights: Weights, images: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """`ViTBackbone`: images to tokens `(B, num_prefix_tokens + N, D)`.

    Args:
        weights: by variable path.
        images: in the `data_format` of the config.
        config: what `get_config()` of the backbone returns.
    """
    if config["data_format"] == "channels_first":
        images = images.transpose(0, 2, 3, 1)
    stem = config.get("stem") or {"class_name": "Patches"}
    if stem["class_name"] == "ConvStem":
        options = stem["config"]
        cut = conv_stem(
            within(weights, "conv_stem"), images, options["strides"], options["activation"], options["pools"]
        )
    else:
        cut = (shifted_patches if stem["class_name"] == "ShiftedPatches" else patches)(images, config["patch_size"])
    grid_size = None
    if config.get("position_bias") is not None:
        height, width = config["patch_size"]
        grid_size = (images.shape[1] // height, images.shape[2] // width)
    tokens = patch_encoder(within(weights, "patch_encoder"), cut)
    for i in range(config["num_layers"]):
        tokens, _ = transformer_block(
            within(weights, f"transformer_block_{i}"),
            tokens,
            num_heads=config["num_heads"],
            activation=config["activation"],
            output_activation=config["output_activation"],
            epsilon=config["layer_norm_epsilon"],
            grid_size=grid_size,
        )
    return layer_norm(within(weights, "encoder_norm"), tokens, config["layer_norm_epsilon"])


def vit_classifier(weights: Weights, images: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """`ViTClassifier`: images to logits `(B, num_classes)`; arguments as in `vit_backbone`."""
    backbone = config["backbone"]["config"]
    prefix = backbone["num_prefix_tokens"]
    tokens = vit_backbone(weights, images, backbone)
    if config["head"] == "flatten":
        x = tokens.reshape(len(tokens), -1)  # (B, (num_prefix_tokens + N) * D)
    elif config["head"] == "token":
        x = tokens[:, 0]  # (B, D)
    elif config["head"] == "mean":
        x = tokens[:, prefix:].mean(axis=1)  # (B, D)
    elif config["head"] == "mean_with_prefix":
        x = tokens.mean(axis=1)  # (B, D)
    else:
        x, _ = sequence_pooling(within(weights, "sequence_pooling"), tokens[:, prefix:])
    for i in range(len(config["head_units"])):
        x = ACTIVATIONS[config["head_activation"]](dense(within(weights, f"head_dense_{i}"), x))
    return dense(within(weights, "logits"), x)


def max_pooling(images: np.ndarray) -> np.ndarray:
    """The largest of each 2x2 pixels; a last odd row or column is left out. `(B, H, W, C)` to `(B, H/2, W/2, C)`."""
    rows, columns = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    corners = [images[:, i:rows:2, j:columns:2] for i in range(2) for j in range(2)]
    return np.max(corners, axis=0)


def cnn_classifier(weights: Weights, images: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """`CNNClassifier`: images to logits `(B, num_classes)`; arguments as in `vit_backbone`."""
    if config["data_format"] == "channels_first":
        images = images.transpose(0, 2, 3, 1)
    activation = ACTIVATIONS[config["activation"]]
    for stage in range(len(config["filters"])):
        for i in range(config["convolutions"]):
            images = activation(convolution(within(weights, f"stage_{stage}_convolution_{i}"), images))
        images = max_pooling(images)
    x = images.reshape(len(images), -1)
    for i in range(len(config["head_units"])):
        x = activation(dense(within(weights, f"head_dense_{i}"), x))
    return dense(within(weights, "logits"), x)
