"""Layer-wise learning-rate decay: the learning rate falls from the head to the patches."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_vit_edu._keras_internals import has_weight_decay
from keras_vit_edu.transfer.freezing import blocks_of, last_before_head, last_step


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class ClippedMultiOptimizer(keras.optimizers.MultiOptimizer):
    """A `keras.optimizers.MultiOptimizer` that clips the gradients by their global norm, over all weights.

    (Each optimizer inside Keras's class sees only its own gradients. If they clipped, every layer would be scaled by a
    different factor.)

    Args:
        optimizer_map: a `keras.optimizers.OptimizerMap`, which maps a variable to its optimizer.
        global_clipnorm: largest global norm of the gradients; None for no clipping.
        **kwargs: further arguments of `MultiOptimizer`.
    """

    def __init__(self, optimizer_map: Any, global_clipnorm: float | None = None, **kwargs: Any) -> None:
        super().__init__(optimizer_map, **kwargs)
        self.global_clipnorm = global_clipnorm

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        if self.global_clipnorm is not None:
            grads = clipped(grads, self.global_clipnorm)
        super().apply(grads, trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "global_clipnorm": self.global_clipnorm}


def clipped(gradients: Sequence[Any], longest: float) -> list[Any]:
    r"""Multiply gradients by \(\min(1, c / \lVert g \rVert)\), with their global norm \(\lVert g \rVert\).

    Args:
        gradients: tensors of any shapes; None where a weight has none.
        longest: c, above 0.

    Returns:
        The clipped gradients, with None where a weight has none.
    """
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients if g is not None]
    length = ops.sqrt(sum(squares))
    factor = longest / ops.maximum(length, longest)
    return [None if g is None else g * ops.cast(factor, g.dtype) for g in gradients]


def steps_below_head(model: keras.Model) -> dict[str, int]:
    """The number of layers between each variable and the head, by the path of the variable.

    It is 0 for the head and the final normalization; 1 for the last block and L for the first of L blocks; L + 1 for
    patch projection, positions and prefix tokens. For a model that is not from this library, it is 0 for the head and 1
    for the rest, or 0 for everything if the head is unknown.
    """
    last, blocks = last_step(model), blocks_of(model)
    if last is None or not isinstance(last[0], keras.layers.Dense):
        return {variable.path: 0 for variable in model.variables}
    steps = {variable.path: len(blocks) + 1 for variable in model.variables}
    for number, block in enumerate(blocks):
        steps |= {variable.path: len(blocks) - number for variable in block.variables}
    for layer in (last[0], *last_before_head(model)):
        steps |= {variable.path: 0 for variable in layer.variables}
    return steps


def layer_wise(
    model: keras.Model,
    make_optimizer: Callable[[float], keras.optimizers.Optimizer],
    decay: float = 0.75,
    global_clipnorm: float | None = None,
) -> keras.optimizers.Optimizer:
    """Make a built optimizer whose learning rate is multiplied by `decay` from each layer to the layer below.

    Layers near the head must adapt to the new task. Layers near the pixels serve any task and should change little.
    (Scaling the gradients instead of the learning rate has no effect under Adam, which divides them by their size.)

    Args:
        model: model to train. See `steps_below_head`.
        make_optimizer: maps a factor in (0, 1] to an optimizer. Its learning rate is the head's, times the factor.
        decay: factor per layer, in (0, 1]; 1 for no decay.
        global_clipnorm: largest global norm of the gradients; None for no clipping.

    Returns:
        A `ClippedMultiOptimizer` with an optimizer per layer.

    Raises:
        ValueError: if no weight is trainable, or if `decay` is not in (0, 1].

    References:
        Howard, Ruder, "Universal language model fine-tuning for text classification" (ACL 2018), section 3.2.
        Bao, Dong, Piao, Wei, "BEiT" (ICLR 2022), arXiv 2106.08254: for ViTs, with these steps.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> model = ViTClassifier(backbone, num_classes=5, head="token", head_units=())
        >>> optimizer = layer_wise(model, lambda factor: keras.optimizers.AdamW(1e-3 * factor), decay=0.5)
        >>> sorted(round(float(one.learning_rate) * 1e3, 6) for one in optimizer.optimizers)
        [0.125, 0.25, 0.5, 1.0]
    """
    if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 < decay <= 1:
        raise ValueError(f"`decay` must be a number above 0 and at most 1. Received: decay={decay!r}")
    if not model.trainable_variables:
        raise ValueError(f"At least one weight must be trainable. Received: {model.name}, all of it frozen")
    steps = steps_below_head(model)
    optimizers = {}  # by a regular expression: Keras stores one optimizer per key
    for count in sorted({steps[variable.path] for variable in model.trainable_variables}):
        variables = [variable for variable in model.trainable_variables if steps[variable.path] == count]
        made = make_optimizer(decay**count)
        if made.weight_decay and not any(has_weight_decay(made, variable) for variable in variables):
            made.weight_decay = 0.0  # Keras on torch fails over an optimizer that exempts all
            made.exclude_from_weight_decay(var_list=[])
        optimizers["|".join(re.escape(variable.path) for variable in variables)] = made
    _, rest = optimizers.popitem()
    optimizer = ClippedMultiOptimizer(
        keras.optimizers.OptimizerMap(rest, optimizers), global_clipnorm=global_clipnorm, name="layer_wise"
    )
    optimizer.build(model.trainable_variables)
    return optimizer
