"""Random state under recomputation: a forward pass that is run again draws again what it drew.

`keras.remat`, `torch.utils.checkpoint` and `tf.recompute_grad` keep no activations: the backward pass runs the forward
pass once more. A layer that counts its draws would count these again and drop other elements than the forward pass
did, and the gradients would be wrong without a word. `Draws` gives the recomputation the state of the forward pass:

- torch sets its own random numbers back to where they stood. A number of it, drawn beside each mask, comes again
  in the recomputation and names the forward pass.
- TensorFlow calls the function again from inside of `tf.recompute_grad`, which the call stack shows.
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

KEPT = 1024  # forward passes of one layer that may wait for their backward pass
ONE_DRAW_AT_A_TIME = threading.Lock()  # reading the counter and raising it are two steps


class Draws:
    """The states that one layer's seed generator gave, for as long as a recomputation may ask for them."""

    def __init__(self) -> None:
        self._tickets: OrderedDict[int, list[tuple[Any, Any]]] = OrderedDict()
        self._segments: OrderedDict[int, _Segment] = OrderedDict()

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
        is_backward = torch._C._current_graph_task_id() != -1
        is_watched, lifetime = _saved_tensor_hooks()
        if not is_backward and not is_watched and torch.is_grad_enabled():
            return _counted(generator)  # nothing will recompute this
        # With gradients off, this may be the forward pass of a checkpoint with `use_reentrant=True`.
        ticket = int(torch.randint(2**62, (), device="cpu"))
        if is_backward:
            return self._redeemed(ticket)
        state = _counted(generator)
        self._tickets.setdefault(ticket, []).append((state, lifetime))
        self._tickets.move_to_end(ticket)
        while len(self._tickets) > KEPT:
            self._tickets.popitem(last=False)
        return state

    def _redeemed(self, ticket: int) -> Any:
        """The state that the forward pass drew with this ticket."""
        drawn = self._tickets.get(ticket, [])
        for candidates in (drawn, [(state, lifetime) for state, lifetime in drawn if _may_be_wanted(lifetime)]):
            if len({tuple(state.tolist()) for state, _ in candidates}) == 1:
                return candidates[0][0]
        raise RuntimeError(
            "Dropout in a backward pass must repeat the mask of the forward pass, and finds "
            f"{'none' if not drawn else 'several'} that it may be. Call `torch.utils.checkpoint` with "
            "`preserve_rng_state=True`, and do not set torch's seed to the same number before two forward passes."
        )

    # TensorFlow. ------------------------------------------------------------------------------------------------------

    def _next_on_tensorflow(self, generator: Any) -> Any:
        forward, recomputation = _recompute_grad_frames(sys._getframe())
        if recomputation is None:
            state = _counted(generator)
        else:
            segment = self._segments.get(id(recomputation["kwargs"]))
            state = None if segment is None else segment.repeated(recomputation["t"])
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
    """What one layer drew in one call of a function that `tf.recompute_grad` wraps.

    Args:
        kwargs: the dictionary of that call, which the recomputation has too. It is held so that no other object gets
            its identity.
    """

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self.kwargs = kwargs
        self.draws: list[Any] = []
        self._repeated: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def repeated(self, tape: Any) -> Any:
        """The next of the draws, None after the last; each recomputation, which has a tape of its own, begins anew."""
        count = self._repeated.get(tape, 0)
        self._repeated[tape] = count + 1
        state = self.draws[count] if count < len(self.draws) else None
        return state() if isinstance(state, weakref.ref) else state


def _counted(generator: Any) -> Any:
    with ONE_DRAW_AT_A_TIME:
        return generator.next()


def _next_on_jax(generator: Any) -> Any:
    import jax

    with ONE_DRAW_AT_A_TIME:
        before = generator.state._value
        state = generator.next()
        if isinstance(generator.state._value, jax.core.Tracer) and not isinstance(before, jax.core.Tracer):
            generator.state._value = before
            raise RuntimeError(
                "Dropout counts its masks, and JAX lets no function that it traces (jax.jit, jax.checkpoint, "
                "keras.remat) do so on the side. Call `layer.stateless_call(..., training=True)` in the function and "
                "return the non-trainable variables that it gives."
            )
    return state


def _is_traced_by_torch() -> bool:
    """Whether `torch.compile`, `torch.jit.trace` or a transformation such as `torch.vmap` follows what is computed."""
    import torch

    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed


def _saved_tensor_hooks() -> tuple[bool, Any]:
    """Whether someone takes what torch saves for the backward pass, and a weak reference to whoever does."""
    import torch

    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    if top is None:  # before torch 2.8
        return True, None
    hooks = top(False)
    if hooks is None:
        return False, None
    try:
        return True, weakref.ref(hooks[1])
    except TypeError:
        return True, None


def _may_be_wanted(lifetime: Any) -> bool:
    """Whether a graph may still ask for what was drawn: its hooks are alive, or it is not known whose they were."""
    return lifetime is None or lifetime() is not None


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
