"""Rebuild a ViT or DeiT of keras_hub from this library's layers, which show their intermediate results."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._keras_internals import layers_within
from keras_vit_edu._weights import copy_of
from keras_vit_edu.layers import TransformerBlock
from keras_vit_edu.layers.patch_encoder import resize_positions
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.models.vit_backbone import unique_name
from keras_vit_edu.models.vit_classifier import Head

# Registered names of keras_hub's classes, so that this file does not import keras_hub.
BACKBONES = ("keras_hub>ViTBackbone", "keras_hub>DeiTBackbone")
HEADS: dict[str, Head] = {"token": "token", "gap": "mean_with_prefix"}  # ours, by keras_hub's pooling
CLASSIFIERS = ("keras_hub>ViTImageClassifier", "keras_hub>DeiTImageClassifier")


def open_vit(model: keras.Model, image_size: int | Sequence[int] | None = None) -> ViTBackbone | ViTClassifier:
    """Rebuild a model of keras_hub from this library's layers, with its weights.

    The outputs and the tokens after every block are equal (to 1e-5 of the largest value in float32). The opened model
    also gives `opened.attention_scores(images)` and `opened.intermediates(images)`, which keras_hub does not. It keeps
    the source's epsilon, biases, dropouts, pooling, data format and dtype policy, and shares no weights with the
    source. If the source's MLP or patch convolution has no bias, the opened model has a bias of zeros.

    Args:
        model: a keras_hub `ViTBackbone`, `DeiTBackbone`, `ViTImageClassifier` or `DeiTImageClassifier`. Its
            preprocessor is not copied: the opened model takes preprocessed images.
        image_size: new image size, `(H, W)` or an int for a square, a multiple of the patch size. Positions are
            interpolated bicubically, as in `PatchEncoder.resized`. None for the source's size.

    Returns:
        A `ViTBackbone` for a backbone, a `ViTClassifier` for a classifier.

    Raises:
        ValueError: for any other model, a quantized model, or an image size that the patch size does not divide.

    Examples:
        >>> import keras_hub  # doctest: +SKIP
        >>> theirs = keras_hub.models.ViTImageClassifier.from_preset("vit_base_patch16_224_imagenet")  # doctest: +SKIP
        >>> ours = open_vit(theirs, image_size=384)  # doctest: +SKIP
        >>> ours.attention_scores(np.zeros((1, 384, 384, 3)))[0].shape  # doctest: +SKIP
        (1, 12, 577, 577)
    """
    kind = keras.saving.get_registered_name(type(model))
    backbone = model.backbone if kind in CLASSIFIERS else model
    if keras.saving.get_registered_name(type(backbone)) not in BACKBONES:
        raise ValueError(
            "Only a ViTBackbone or DeiTBackbone of keras_hub can be opened, or a ViTImageClassifier or "
            "DeiTImageClassifier with one of them. Other models can be used unchanged, but not opened. "
            f"Received: {type(model).__name__}" + (f" around {type(backbone).__name__}" if kind in CLASSIFIERS else "")
        )
    for layer in layers_within(model):
        if getattr(layer, "quantization_mode", None) is not None:
            raise ValueError(
                f"A quantized model cannot be opened. Open it first, then quantize. Received: {model.name}, where "
                f"{layer.path} is quantized to {layer.quantization_mode}"
            )
    if kind not in CLASSIFIERS:
        return _open_backbone(backbone, image_size)
    if model.pooling not in HEADS:
        raise ValueError(f"The pooling of a classifier must be one of {tuple(HEADS)}. Received: {model.pooling!r}")
    return _open_classifier(model, _open_backbone(backbone, image_size))


def _open_backbone(source: Any, image_size: int | Sequence[int] | None) -> ViTBackbone:
    is_deit = type(source).__name__ == "DeiTBackbone"
    family = "deit" if is_deit else "vit"
    embedding = source.get_layer(f"{family}_patching_and_embedding")
    encoder = source.get_layer(f"{family}_encoder")
    if is_deit:
        prefix_tokens = [embedding.class_token, embedding.distillation_token]
        positions = embedding.position_embedding
    else:
        prefix_tokens = [embedding.class_token] if source.use_class_token else []
        positions = embedding.position_embedding.embeddings

    opened = ViTBackbone(
        _image_shape(source, image_size),
        tuple(source.patch_size),
        source.hidden_dim,
        source.num_layers,
        source.num_heads,
        encoder.encoder_layers[0].key_dim,
        source.intermediate_dim if is_deit else source.mlp_dim,
        num_prefix_tokens=len(prefix_tokens),
        dropout=source.dropout_rate,
        # keras_hub's DeiT has dropout only at the end of a block. Its ViT also has it after attention and in the MLP.
        hidden_dropout=0.0 if is_deit else source.dropout_rate,
        projection_dropout=0.0 if is_deit else source.dropout_rate,
        attention_dropout=source.attention_dropout,
        embedding_dropout=source.dropout_rate,
        name=unique_name("opened_vit_backbone"),
        use_bias=source.use_mha_bias,
        layer_norm_epsilon=source.layer_norm_epsilon,
        data_format=source.data_format,
        dtype=encoder.dtype_policy,
    )
    patch_encoder = opened.get_layer("patch_encoder")
    _copy_dense(embedding.patch_embedding, patch_encoder.projection)  # (ph, pw, C, D) to (ph * pw * C, D)
    if prefix_tokens:
        patch_encoder.prefix_tokens.assign(np.concatenate([copy_of(token)[0] for token in prefix_tokens]))
    old_grid = tuple(side // patch for side, patch in zip(embedding.image_size, opened.patch_size, strict=True))
    patch_encoder.position_embedding.assign(_positions(positions, len(prefix_tokens), old_grid, opened.grid_size))
    for theirs, ours in zip(encoder.encoder_layers, opened.transformer_blocks, strict=True):
        _copy_block(theirs, ours, is_deit)
    _copy_norm(encoder.layer_norm, opened.get_layer("encoder_norm"))
    return opened


def _open_classifier(source: Any, backbone: ViTBackbone) -> ViTClassifier:
    width = getattr(source, "intermediate_dim", None)  # a DeiTImageClassifier never has a hidden layer
    opened = ViTClassifier(
        backbone,
        source.num_classes,
        **head_arguments(source.pooling, width, head_dropout(source)),
        activation=source.activation,
        head_dtype=source.output_dense.dtype_policy,
    )
    if width is not None:
        _copy_dense(source.intermediate_layer, opened.get_layer("head_dense_0"))
    _copy_dense(source.output_dense, opened.get_layer("logits"))
    return opened


def head_arguments(pooling: str, hidden_units: int | None, dropout: float) -> dict[str, Any]:
    """The arguments of a `ViTClassifier` for keras_hub's head.

    Args:
        pooling: key of `HEADS`.
        hidden_units: width of the Dense layer with tanh before the logits; None for none.
        dropout: rate before the logits.
    """
    return {
        "head": HEADS[pooling],
        "head_units": () if hidden_units is None else (hidden_units,),
        "head_dropout": dropout if hidden_units is None else (0.0, dropout),
        "head_activation": "tanh",
    }


def head_dropout(source: Any) -> float:
    """The dropout before a classifier's logits. (A DeiTImageClassifier has a dropout layer, but does not use it.)"""
    return 0.0 if type(source).__name__ == "DeiTImageClassifier" else source.dropout


def _image_shape(source: Any, image_size: int | Sequence[int] | None) -> tuple[int, ...]:
    """The source's image shape, with a new height and width if `image_size` is given."""
    if image_size is None:
        return tuple(source.image_shape)
    height, width = _checks.pair_of_ints("image_size", image_size)
    if source.data_format == "channels_first":
        return source.image_shape[0], height, width
    return height, width, source.image_shape[2]


def _positions(
    variable: Any, num_prefix_tokens: int, old_grid: tuple[int, ...], new_grid: tuple[int, int]
) -> np.ndarray:
    """The position vectors `(T, D)`. For a new grid, the vectors of the patches are interpolated."""
    positions = copy_of(variable).astype("float32")
    positions = positions.reshape(-1, positions.shape[-1])  # DeiT's is (1, T, D)
    if new_grid == old_grid:
        return positions
    patches = resize_positions(positions[num_prefix_tokens:], (old_grid[0], old_grid[1]), new_grid)
    return np.concatenate([positions[:num_prefix_tokens], patches])


def _copy_block(theirs: Any, ours: TransformerBlock, is_deit: bool) -> None:
    _copy_norm(theirs.layer_norm_1, ours.attention_norm)
    for name_of_theirs, name_of_ours in (
        ("query_dense", "q_dense"),  # (D, h, d) to (D, h * d), as the next two
        ("key_dense", "k_dense"),
        ("value_dense", "v_dense"),
        ("output_dense", "out_dense"),  # (h, d, D) to (h * d, D)
    ):
        _copy_dense(getattr(theirs.mha, name_of_theirs), getattr(ours.attention, name_of_ours))
    _copy_norm(theirs.layer_norm_2, ours.mlp_norm)
    _copy_dense(theirs.mlp.dense if is_deit else theirs.mlp.dense_1, ours.mlp_hidden)
    _copy_dense(theirs.output_layer.dense if is_deit else theirs.mlp.dense_2, ours.mlp_output)


def _copy_dense(theirs: Any, ours: Any) -> None:
    """Copy kernel and bias of a Dense layer, an attention projection or a patch convolution, reshaped for our layer."""
    ours.kernel.assign(copy_of(theirs.kernel).reshape(ours.kernel.shape))  # includes LoRA's update
    if theirs.bias is not None:
        ours.bias.assign(copy_of(theirs.bias).reshape(ours.bias.shape))
    elif ours.bias is not None:
        ours.bias.assign(np.zeros(ours.bias.shape))


def _copy_norm(theirs: Any, ours: Any) -> None:
    ours.gamma.assign(copy_of(theirs.gamma))
    ours.beta.assign(copy_of(theirs.beta))
