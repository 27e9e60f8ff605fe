"""Random state under recomputation: a forward pass that is run again draws again what it drew.

`keras.remat`, `torch.utils.checkpoint` and `tf.recompute_grad` keep no activations: the backward pass runs the forward
pass once more. A layer that counts its draws would count these again and drop other elements than the forward pass
did, and the gradients would be wrong without a word. `Draws` gives the recomputation the state of the forward pass:

- torch and TensorFlow call the function again from inside of `torch.utils.checkpoint` or `tf.recompute_grad`. The call
  stack shows that, and which forward pass is run again.
- JAX traces the function once, so one mask serves both. There the counter has to leave the function as an output
  (`keras.Layer.stateless_call`): JAX complains about one that leaves it otherwise.
"""

import sys
import threading
import weakref
from collections import OrderedDict
from types import FrameType
from typing import Any

import keras

from keras_vit_edu._keras_internals import held_value, set_held_value

KEPT = 1024  # forward passes of one layer that may wait for their backward pass
ONE_DRAW_AT_A_TIME = threading.Lock()  # reading the counter and raising it are two steps


class Draws:
    """The states that one layer's seed generator gave, for as long as a recomputation may ask for them."""

    def __init__(self) -> None:
        self._checkpoints: weakref.WeakKeyDictionary[Any, _Segment] = weakref.WeakKeyDictionary()  # torch
        self._segments: OrderedDict[int, _Segment] = OrderedDict()  # TensorFlow

    def next(self, generator: keras.random.SeedGenerator) -> Any:
        """The generator's next state; in a recomputation, the one that the forward pass got.

        Args:
            generator: the layer's.

        Returns:
            Integer tensor `(2,)`: seed and counter.

        Raises:
            RuntimeError: in a recomputation whose forward pass cannot be told; in a function that JAX traces, for a
                counter that would not come out of it.
        """
        backend = keras.backend.backend()
        if backend == "torch":
            return self._next_on_torch(generator)
        if backend == "tensorflow":
            return self._next_on_tensorflow(generator)
        if backend == "jax":
            return _next_on_jax(generator)
        return _counted(generator)

    # torch. -----------------------------------------------------------------------------------------------------------

    def _next_on_torch(self, generator: Any) -> Any:
        import torch

        if _is_traced_by_torch() or generator.state.value.device.type == "meta":
            return generator.next()  # nobody calls this a second time
        forward, recomputation, run = _torch_checkpoints(sys._getframe())
        if recomputation is not None:
            segment = self._checkpoints.get(recomputation)
            state = None if segment is None else segment.repeated(run)
        else:
            state = _counted(generator) if torch._C._current_graph_task_id() == -1 else None
        if state is None:
            raise RuntimeError(
                "Dropout in a backward pass must repeat the mask of the forward pass, and finds none. "
                "Call `torch.utils.checkpoint.checkpoint` or `keras.remat`, with a function that draws as often each "
                "time it is called."
            )
        for checkpoint in forward:
            self._checkpoints.setdefault(checkpoint, _Segment()).draws.append(state)
        return state

    # TensorFlow. ------------------------------------------------------------------------------------------------------

    def _next_on_tensorflow(self, generator: Any) -> Any:
        forward, recomputation = _recompute_grad_frames(sys._getframe())
        if recomputation is None:
            state = _counted(generator)
        else:
            segment = self._segments.get(id(recomputation["kwargs"]))
            state = None if segment is None else segment.repeated(weakref.ref(recomputation["t"]))
            if state is None:
                raise RuntimeError(
                    "Dropout in a recomputation must repeat the mask of the forward pass, and finds none. "
                    "Give `tf.recompute_grad` (`keras.remat`) a function that draws as often each time it is called."
                )
        for variables in forward:
            self._segment_of(variables).draws.append(_kept(state))
        return state

    def _segment_of(self, variables: dict[str, Any]) -> "_Segment":
        key = id(variables["kwargs"])
        if key not in self._segments:
            segment = self._segments[key] = _Segment(variables["kwargs"])
            tensors = [x for x in keras.tree.flatten(variables["args"]) if keras.ops.is_tensor(x)]
            if tensors:  # when they are gone there is nothing to recompute from
                weakref.finalize(tensors[0], self._forget, key, weakref.ref(segment)).atexit = False
            while len(self._segments) > KEPT:
                self._segments.popitem(last=False)
        return self._segments[key]

    def _forget(self, key: int, segment: Any) -> None:
        if self._segments.get(key) is segment():
            self._segments.pop(key, None)


class _Segment:
    """What one layer drew in one call of a function that is run again in the backward pass.

    Args:
        kept: an object to hold, so that no other gets its identity.
    """

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept
        self.draws: list[Any] = []
        self._repeated: dict[Any, int] = {}

    def repeated(self, run: Any) -> Any:
        """The next of the draws, None after the last; each recomputation `run` begins with the first."""
        count = self._repeated.get(run, 0)
        self._repeated[run] = count + 1
        state = self.draws[count] if count < len(self.draws) else None
        return state() if isinstance(state, weakref.ref) else state


def _counted(generator: Any) -> Any:
    with ONE_DRAW_AT_A_TIME:
        return generator.next()


def _next_on_jax(generator: Any) -> Any:
    with ONE_DRAW_AT_A_TIME:
        outside, before = held_value(generator.state), generator.state.value
        state = generator.next()
        if _is_lost_by_jax(before, generator):
            generator.state.assign(before)
            set_held_value(generator.state, outside)
            raise RuntimeError(
                "Dropout counts its masks, and JAX lets no function that it traces (jax.jit, jax.checkpoint, "
                "keras.remat) do so on the side. Call `layer.stateless_call(..., training=True)` in the function and "
                "return the non-trainable variables that it gives. In a model for `fit`, leave dropout out of the "
                "function."
            )
    return state


def _is_lost_by_jax(before: Any, generator: Any) -> bool:
    """Whether the counter, which was `before`, is now a value of a function that does not return it."""
    from jax.core import Tracer

    after = generator.state.value
    if not isinstance(after, Tracer):
        return False
    if not isinstance(before, Tracer):
        return after is held_value(generator.state)  # not in a `StatelessScope`, which hands it out
    # Before JAX 0.4.36 a function has one `main` and several traces.
    first, second = (getattr(tracer._trace, "main", None) or tracer._trace for tracer in (before, after))
    return first is not second and _is_jax_inside_the_scope(sys._getframe())


def _is_jax_inside_the_scope(frame: FrameType | None) -> bool:
    """Whether JAX began to trace after the `StatelessScope` that hands the counter out was entered."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("jax."):
            return True
        if any(isinstance(value, keras.StatelessScope) for value in frame.f_locals.values()):
            return False
        frame = frame.f_back
    return False


def _is_traced_by_torch() -> bool:
    """Whether `torch.compile`, `torch.jit.trace` or a transformation such as `torch.vmap` follows what is computed."""
    import torch

    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed


def _torch_checkpoints(frame: FrameType | None) -> tuple[list[Any], Any, Any]:
    """The calls of `torch.utils.checkpoint` that are under way, the innermost first.

    Returns:
        The objects of torch that stand for those in their forward pass, up to the first in its recomputation; the
        object of that one, or None; what tells its recomputations apart.
    """
    import torch

    forward: list[Any] = []
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            name, variables = frame.f_code.co_name, frame.f_locals
            if name == "checkpoint" and "gen" in variables:
                forward.append(variables["gen"].gi_frame.f_locals["new_frame"])
            elif name == "forward" and "ctx" in variables:  # use_reentrant=True
                forward.append(variables["ctx"])
            elif name == "unpack_hook" and "gid" in variables:
                return forward, variables["frame"], variables["gid"]
            elif name == "backward" and "ctx" in variables:
                return forward, variables["ctx"], torch._C._current_graph_task_id()
        frame = frame.f_back
    return forward, None, None


def _recompute_grad_frames(frame: FrameType | None) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The local variables of the calls of `tf.recompute_grad` that are under way, the innermost first.

    Returns:
        Those in their forward pass, up to the first that is in its recomputation; those of that one, or None.
    """
    forward: list[dict[str, Any]] = []
    is_inside_a_graph_of_its_own = False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_name
        if module.startswith("tensorflow.python.eager.polymorphic_function"):
            is_inside_a_graph_of_its_own = True
        if module == "tensorflow.python.ops.custom_gradient" and name in ("inner", "inner_recompute_grad"):
            variables = dict(frame.f_locals)
            if "kwargs" in variables and "args" in variables:
                if is_inside_a_graph_of_its_own:
                    raise RuntimeError(
                        "A `tf.function` inside of `tf.recompute_grad` (`keras.remat`) is not called again in the "
                        "recomputation, so its dropout would draw another mask. Put the `tf.function` outside."
                    )
                if name == "inner_recompute_grad":
                    return forward, variables
                forward.append(variables)
        frame = frame.f_back
    return forward, None


def _kept(state: Any) -> Any:
    """A state to be repeated: a tensor of a graph is its graph's, and not kept alive here."""
    import tensorflow as tf

    return state if isinstance(state, tf.__internal__.EagerTensor) else weakref.ref(state)
