"""LoRA: train low-rank updates of the attention projections instead of the projections."""

from collections.abc import Sequence
from typing import Any

from keras_vit_edu import _checks, initializers, random
from keras_vit_edu._keras_internals import layers_within, sublayers
from keras_vit_edu._weights import copy_of, copy_variables
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.transfer.freezing import blocks_of, has_lora, head_of, set_trainable, train_only

PROJECTIONS = ("q_dense", "k_dense", "v_dense", "out_dense")


def add_lora(
    model: ViTClassifier,
    rank: int = 8,
    alpha: float | None = None,
    target_layer_names: Sequence[str] = ("q_dense", "v_dense"),
    seed: int = 0,
) -> ViTClassifier:
    r"""Copy a model so that only its head and low-rank updates of its attention projections train.

    A kernel \(W\) becomes \(W + \frac{\alpha}{r} A B\), where A is `(D, r)` and B is `(r, D)`. A is random, with the
    same bits on every backend. B is zero, so the copy first computes the same as the model. `merge_lora` adds the
    updates to the kernels.

    Args:
        model: a `ViTClassifier`; it is not changed.
        rank: r, at least 1.
        alpha: scale of the updates; None for `rank`, which gives a factor of 1.
        target_layer_names: which projections, of `q_dense`, `k_dense`, `v_dense` and `out_dense`; the paper's are query
            and value.
        seed: int in [0, 2**31), of A.

    Returns:
        A new `ViTClassifier`, uncompiled, that computes the same.

    Raises:
        ValueError: if the model is not a `ViTClassifier` or already has LoRA, or if an argument is out of range.

    Reference:
        Hu et al., "LoRA: low-rank adaptation of large language models" (ICLR 2022), arXiv 2106.09685.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> tuned = add_lora(ViTClassifier(backbone, num_classes=5, head="token", head_units=()), rank=2)
        >>> sum(w.shape[0] * w.shape[1] for w in tuned.trainable_weights if "lora" in w.path)  # 2 * 2 * (12*2 + 2*12)
        192
    """
    rank = _checks.positive_int("rank", rank)
    if alpha is not None and not (_checks.is_number(alpha) and alpha > 0):
        raise ValueError(f"`alpha` must be a number above 0, or None. Received: alpha={alpha!r}")
    if isinstance(target_layer_names, str) or not are_projections(target_layer_names):
        raise ValueError(
            f"`target_layer_names` must be some of {', '.join(PROJECTIONS)}, each once. "
            f"Received: target_layer_names={target_layer_names!r}"
        )
    check_takes_lora(model)
    copy = copied(model)
    train_only_lora_and_head(copy, target_layer_names)
    for number, block in enumerate(blocks_of(copy)):
        for name in target_layer_names:
            projection = getattr(block.attention, name)  # type: ignore[attr-defined]
            draws = initializers.HeUniform(seed=random.derive_seed(seed, f"transformer_block_{number}/{name}"))
            projection.enable_lora(rank, lora_alpha=alpha, a_initializer=draws, b_initializer="zeros")
            if projection.bias is not None:
                projection.bias.trainable = False
    return copy


def are_projections(names: Sequence[Any]) -> bool:
    """Whether `names` are names of attention projections, each at most once."""
    return bool(names) and all(name in PROJECTIONS for name in names) and len(set(names)) == len(names)


def check_takes_lora(model: Any) -> None:
    """Raise ValueError if a model is not made of our attention layers, or already has LoRA."""
    if not blocks_of(model):
        raise ValueError(
            "LoRA needs a model with attention layers of this library, such as `open_vit` returns. "
            f"Received: {type(model).__name__} {model.name!r}"
        )
    _complain_of_lora(model)


def train_only_lora_and_head(model: Any, target_layer_names: Sequence[str]) -> None:
    """Freeze every layer except the head and the layers with the given projections."""
    train_only(model, [head_of(model), *blocks_of(model)])
    for block in blocks_of(model):
        attention: Any = block.attention  # type: ignore[attr-defined]
        for layer in (*sublayers(block), *sublayers(attention)):
            if layer is not attention and layer.name not in target_layer_names:
                set_trainable(layer, False)


def merge_lora(model: ViTClassifier, into: ViTClassifier | None = None) -> ViTClassifier:
    r"""Merge LoRA's updates into plain kernels, \(W + \frac{\alpha}{r} A B\).

    Args:
        model: a model from `add_lora`.
        into: the original model, or one like it, which receives the weights; None for a new model.

    Returns:
        `into`, or the new model: all weights trainable, without A and B.

    Raises:
        ValueError: if the model has no LoRA, or if `into` has another architecture.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> model = ViTClassifier(backbone, num_classes=5, head="token", head_units=())
        >>> merge_lora(add_lora(model)).count_params() == model.count_params()
        True
    """
    if not _with_lora(model):
        raise ValueError(f"The model must have LoRA. Received: {model.name}, without LoRA")
    merged = type(model).from_config(model.get_config()) if into is None else into
    _complain_of_lora(merged)
    additions = {id(w) for layer in _with_lora(model) for w in (layer.lora_kernel_a, layer.lora_kernel_b)}
    plain = [variable for variable in model.variables if id(variable) not in additions]
    if [tuple(variable.shape) for variable in merged.variables] != [tuple(variable.shape) for variable in plain]:
        raise ValueError(f"`into` must have the same architecture. Received: {merged.name} for {model.name}")
    copy_variables(plain, merged.variables)
    for tuned, mine in zip(layers_within(model), layers_within(merged), strict=True):
        if has_lora(tuned):
            mine.kernel.assign(copy_of(tuned.kernel))  # `kernel` is the sum with LoRA's update
    if into is None:
        set_trainable(merged, True)
    return merged


def copied(model: Any) -> Any:
    """A model of the same configuration with the same weights and dropout counters."""
    copy = type(model).from_config(model.get_config())
    copy_variables(model.variables, copy.variables)
    return copy


def _with_lora(model: Any) -> list[Any]:
    return [layer for layer in layers_within(model) if has_lora(layer)]


def _complain_of_lora(model: Any) -> None:
    if _with_lora(model):
        raise ValueError(f"The model must not have LoRA. Call `merge_lora` first. Received: {model.name}, with LoRA")
