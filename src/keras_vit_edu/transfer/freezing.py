"""Choose which weights train: the head, the last blocks, or all."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from rich.console import Console

from keras_vit_edu._keras_internals import compile_arguments, layers_within, origin

# The layers between the blocks and the logits.
BEFORE_LOGITS = ("encoder_norm", "sequence_pooling", "head_dense_")


class TrainableCount(NamedTuple):
    """The number of trainable weights, and of all weights."""

    trainable: int
    total: int


def freeze_backbone(model: keras.Model, console: Console | None = None) -> TrainableCount:
    """Freeze everything but the head. Same as `unfreeze_last(model, 0)`.

    Args:
        model: a model that ends in a Dense layer, the head; see `unfreeze_last`.
        console: prints the counts; None for the standard output.

    Returns:
        How many weights train, and how many there are.

    Raises:
        ValueError: as `unfreeze_last`.

    Examples:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)], name="small")
        >>> count = freeze_backbone(model)
        small: 8 of 23 weights train (34.78%)
    """
    return unfreeze_last(model, 0, console)


def unfreeze_last(model: keras.Model, k: int | None, console: Console | None = None) -> TrainableCount:
    """Make the head and the last `k` transformer blocks trainable, freeze the rest, and print the counts.

    The head is the last Dense layer only. The final normalization and the other layers of the head train together with
    the last block. Patch projection, class token and positions train only if everything trains. Neither training nor
    weight decay changes frozen weights. (Dropout in frozen layers stays active.)

    A compiled model is compiled again with a new optimizer: the old optimizer holds moments of other weights, and the
    old training step would still train them. (Keras does not store exclusions of `exclude_from_weight_decay`. If you
    use them, compile the model again yourself.)

    Args:
        model: a `ViTClassifier`; or any model that ends in a Dense layer, if `k` is 0 or None; or any model, if `k` is
            None.
        k: number of blocks, from 0 (only the head) to all blocks; None for everything, embeddings too.
        console: prints the counts; None for the standard output.

    Returns:
        How many weights train, and how many there are.

    Raises:
        ValueError: if the model does not end in a Dense layer (unless `k` is None), has fewer than `k` blocks, or has
            LoRA matrices.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> model = ViTClassifier(backbone, num_classes=5, head="token", head_units=(), name="classifier")
        >>> count = unfreeze_last(model, 0)  # 12 * 5 weights and 5 biases
        classifier: 65 of 5,189 weights train (1.25%)
    """
    blocks = blocks_of(model)
    head = head_of(model) if k is not None else None
    check_number_of_blocks("k", k, model)
    check_has_no_lora(model)
    if head is None:
        set_trainable(model, True)
    else:
        chosen = [head, *blocks[len(blocks) - k :]] if k else [head]
        if k:
            chosen += last_before_head(model)
        train_only(model, chosen)
    compile_anew(model)
    return tell_trainable(model, console)


def check_number_of_blocks(name: str, k: Any, model: keras.Model) -> None:
    """Raise ValueError if `k` is neither None nor a number of blocks that the model has."""
    count = len(blocks_of(model))
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= count):
        there_are = f"{model.name} has {count} transformer blocks" if count else f"{model.name} has no blocks to count"
        raise ValueError(f"`{name}` must be None (all weights) or 0 to {count}, as {there_are}. Received: {name}={k!r}")


def check_has_no_lora(model: keras.Model) -> None:
    """Raise ValueError if a model has LoRA matrices."""
    if any(map(has_lora, layers_within(model))):
        raise ValueError(
            f"A model with LoRA cannot be frozen. Call `merge_lora` first. Received: {model.name}, with LoRA"
        )


def head_of(model: keras.Model) -> keras.layers.Dense:
    """The Dense layer at the end of a model, which maps features to logits.

    It may be in a nested model at the end: a Sequential in a functional model, or the reverse.
    """
    last = last_step(model)
    if last is None or not isinstance(last[0], keras.layers.Dense):
        found = f"a {type(model).__name__}" if last is None else f"{type(last[0]).__name__} {last[0].name!r} at its end"
        raise ValueError(f"A classifier must end in a Dense layer, its head. Received: {model.name}, with {found}")
    check_gives_logits(model)
    return last[0]


def check_gives_logits(model: keras.Model) -> None:
    """Raise ValueError if a model ends in an activation."""
    activation = last_activation(model)
    if activation is not keras.activations.linear:
        raise ValueError(
            "A classifier must give logits, without an activation. "
            f"Received: {model.name}, with {keras.activations.serialize(activation)!r}"
        )


def last_step(model: Any) -> tuple[Any, Any] | None:
    """The layer that computes the output of a model, and its input tensor; None if they are unknown.

    If the last layer is a nested model, the result is from the nested model. They are unknown for a subclassed model,
    and for a model with several outputs.
    """
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) != 1:
        return None
    last, taken = origin(outputs[0])
    if len(taken) != 1:
        return None
    if isinstance(last, keras.Model):
        return last_step(last)
    return last, taken[0]


def last_activation(model: Any) -> Any:
    """The activation of a model's last layer; linear if the last layer is unknown."""
    last, _ = last_step(model) or (None, None)
    is_softmax = type(last).__name__ == "Softmax"  # the layer, or the function of `keras.ops`
    return keras.activations.get("softmax" if is_softmax else getattr(last, "activation", None))


def blocks_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The transformer blocks of a model of this library, in order; an empty list for any other model."""
    return list(getattr(getattr(model, "backbone", None), "transformer_blocks", []))


def last_before_head(model: Any) -> list[keras.layers.Layer]:
    """The final normalization of a ViT and the layers between it and the logits; an empty list for any other model."""
    layers = (*model.layers, *model.backbone.layers) if blocks_of(model) else ()
    return [layer for layer in layers if layer.name.startswith(BEFORE_LOGITS)]


def has_lora(layer: keras.layers.Layer) -> bool:
    """Whether the layer itself has LoRA matrices beside its kernel."""
    return bool(getattr(layer, "lora_enabled", False))


def set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Make a layer, all layers inside it and all their weights trainable, or freeze them."""
    for one in layers_within(layer):
        # Twice: TensorFlow ignores an assignment that changes nothing, although inner layers may differ.
        one.trainable = not value
        one.trainable = value


def train_only(model: keras.Model, chosen: Sequence[keras.layers.Layer]) -> None:
    """Freeze all layers of a model except `chosen`, which may be in nested models."""
    set_trainable(model, False)
    _unfreeze_way_to(model, chosen)


def _unfreeze_way_to(outer: Any, chosen: Sequence[keras.layers.Layer]) -> None:
    set_trainable(outer, True)  # an inner layer trains only if the layers around it do
    for layer in outer.layers:
        set_trainable(layer, False)
    for layer in outer.layers:
        if any(layer is one for one in chosen):
            set_trainable(layer, True)
        elif hasattr(layer, "layers") and any(one is within for one in chosen for within in layers_within(layer)):
            _unfreeze_way_to(layer, chosen)


def compile_anew(model: keras.Model) -> None:
    """If the model was compiled, compile it with a new optimizer of the same configuration."""
    if model.compiled:
        arguments = compile_arguments(model)
        optimizer = keras.optimizers.serialize(keras.optimizers.get(arguments["optimizer"]))
        model.compile(**{**arguments, "optimizer": keras.optimizers.deserialize(optimizer)})


def tell_trainable(model: keras.Model, console: Console | None = None) -> TrainableCount:
    """Print and return how many weights of a model train."""
    count = count_trainable(model)
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    share = count.trainable / max(count.total, 1)
    console.print(f"{model.name}: {count.trainable:,} of {count.total:,} weights train ({share:.2%})")
    return count


def count_trainable(layer: Any) -> TrainableCount:
    """Count the trainable weights and all weights of a layer or a model."""
    trainable, total = (sum(math.prod(w.shape) for w in some) for some in (layer.trainable_weights, layer.weights))
    return TrainableCount(trainable, total)


def table_of_parameters(model: Any) -> list[str]:
    """The lines of a table: parameters and trainable parameters of each layer, and the total.

    The layers inside the backbone of a model of this library are listed one by one.
    """
    layers = list(model.layers)
    if blocks_of(model):
        layers = [*model.backbone.layers, *(layer for layer in layers if layer is not model.backbone)]
    rows = [(layer.name, count_trainable(layer)) for layer in layers if layer.weights]
    rows.append(("total", count_trainable(model)))
    width = max(len(name) for name, _ in rows)
    return [
        f"{'':{width}}  {'parameters':>13}  {'trainable':>13}",
        *(f"{name:{width}}  {count.total:13,}  {count.trainable:13,}" for name, count in rows),
    ]
