"""Dropout whose masks are the same on every backend."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _checks, random
from keras_vit_edu._types import Shape, Tensor
from keras_vit_edu.layers.recomputation import Draws


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class PortableDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` with masks that are equal, bit for bit, on TensorFlow, PyTorch and JAX.

    In training an element is set to 0 with probability `rate`. The others are divided by `1 - rate`, which keeps the
    mean. The mask is a hash of (seed, counter, flat position). The counter increases by one in every training call. It
    is saved with the model, so resumed training uses the mask that would have been next. (Keras's Dropout does not save
    it.)

    If a backward pass runs the forward pass again (`keras.remat`, `torch.utils.checkpoint`, `tf.recompute_grad`), the
    layer repeats its mask and does not count. Threads that call one layer at the same time draw different masks, in any
    order. Threads that run one `tf.function` at the same time may draw equal masks.

    Args:
        rate: probability of dropping an element, in [0, 1).
        noise_shape: shape of the mask, which is broadcast against the inputs; None entries are the sizes of the inputs.
            Defaults to the shape of the inputs.
        seed: int in [0, 2**31). Defaults to a new seed, which `keras.utils.set_random_seed` fixes.
        **kwargs: arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        inputs: float tensor of any shape.
        training: whether dropout acts.

    Returns:
        Tensor of the inputs' shape.

    Raises:
        ValueError: if `rate` is outside [0, 1), `seed` is outside [0, 2**31), or `noise_shape` is not a list of whole
            numbers and None.
        RuntimeError: in a recomputation, if its forward pass cannot be identified; on JAX, in a traced function that
            does not pass the counter in and out, as `stateless_call` does.

    Reference:
        Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (JMLR 2014).

    Examples:
        >>> dropout = PortableDropout(0.5, seed=0)
        >>> kept = dropout(np.ones((2, 8), "float32"), training=True)
        >>> sorted(set(keras.ops.convert_to_numpy(kept).flatten().tolist()))
        [0.0, 2.0]
    """

    def __init__(self, rate: float, noise_shape: Shape | None = None, seed: int | None = None, **kwargs: Any) -> None:
        if noise_shape is not None:
            sizes = _checks.sequence(noise_shape)
            if sizes is None:
                raise ValueError(
                    "`noise_shape` must be a list of whole numbers and None. "
                    f"Received: noise_shape={_checks.shown(noise_shape)}"
                )
            noise_shape = tuple(None if size is None else _checks.positive_int("noise_shape", size) for size in sizes)
        super().__init__(
            _checks.dropout_rate("rate", rate), noise_shape=noise_shape, seed=random.check_seed(seed), **kwargs
        )
        self._draws = Draws()

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        state = self._draws.next(self.seed_generator)  # (2,): seed, counter
        keep = random.dropout_mask_in_graph(state, self._mask_shape(inputs), self.rate)
        return ops.where(keep, inputs * (1 / (1 - self.rate)), 0.0)

    def _mask_shape(self, inputs: Tensor) -> Sequence[Any]:
        shape = ops.shape(inputs)
        if self.noise_shape is None:
            return shape
        if len(self.noise_shape) != len(shape):
            raise ValueError(
                "`noise_shape` must have as many dimensions as the inputs. "
                f"Received: noise_shape={self.noise_shape}, inputs of shape {tuple(inputs.shape)}"
            )
        return [own if given is None else given for given, own in zip(self.noise_shape, shape, strict=True)]

    # Keras saves variables, not the state of seed generators, so a loaded layer would start again at mask 0.

    def save_own_variables(self, store: Any) -> None:
        if self.rate > 0:
            store["seed_and_counter"] = ops.convert_to_numpy(self.seed_generator.state).astype("int64")

    def load_own_variables(self, store: Any) -> None:
        if self.rate > 0 and "seed_and_counter" in store:
            self.seed_generator.state.assign(np.array(store["seed_and_counter"]))
