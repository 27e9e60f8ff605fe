"""A hook sees, and may change, what layers compute. `explain` looks inside of models by one.

A hook belongs to a thread (more exactly, to a context of `contextvars`): other threads that call the same layers do not
meet it, and no layer is changed.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import keras

from keras_vit_edu._types import Tensor

Hook = Callable[[keras.layers.Layer, str, Tensor], Tensor]
_HOOK: contextvars.ContextVar[Hook | None] = contextvars.ContextVar("hook", default=None)


@contextlib.contextmanager
def hooked(hook: Hook) -> Iterator[None]:
    """Let layers call `hook` while the block runs, in this thread.

    Args:
        hook: called as `hook(layer, name, tensor)`; the layer goes on with the tensor that it returns. The names:
            `"images"` of `Patches`, `ShiftedPatches` and `ConvStem`, as they take them; `"tokens"` of `PatchEncoder`
            and `TransformerBlock`, as they return them; of `MyMultiHeadAttention` `"scores"`, `(B, h, T, S)` after the
            softmax and before dropout, and `"heads"`, `(B, h, T, dv)`; `"scores"` of `SequencePooling`, `(B, N)`;
            `"normalised"` of `LayerNormalization`.
    """
    token = _HOOK.set(hook)
    try:
        yield
    finally:
        _HOOK.reset(token)


def is_hooked() -> bool:
    """Whether a hook wants to see what layers compute: attention then takes its explicit path."""
    return _HOOK.get() is not None


def through_hook(layer: keras.layers.Layer, name: str, tensor: Tensor) -> Tensor:
    """The tensor that the hook makes of this one; the same one without a hook."""
    hook = _HOOK.get()
    return tensor if hook is None else hook(layer, name, tensor)
