"""Compare a user's own layer or model across backends: run the function that builds it on every backend."""

import importlib
import numbers
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vit_edu import _backend, random
from keras_vit_edu.parity.arrays import load_arrays, save_arrays
from keras_vit_edu.parity.checks import Check, Measurement, Scene
from keras_vit_edu.parity.compare import EQUAL_BITS, Tolerance
from keras_vit_edu.parity.derivatives import by_path, output_and_gradients
from keras_vit_edu.parity.report import Report
from keras_vit_edu.parity.rows import rows
from keras_vit_edu.parity.run import run

FORWARD, FILES = "own-code", "save-load"

# An array or a shape; or several of them, by position or by name.
Input = np.ndarray | tuple[int, ...]
Inputs = Input | Sequence[Input] | Mapping[str, Input]


class ParityError(RuntimeError):
    """A `build_fn` failed in a process. The message says where and why."""


def check(
    build_fn: Callable[[], keras.layers.Layer] | str,
    inputs: Inputs,
    *,
    backends: Sequence[str] | None = None,
    training: bool = False,
    gradients: bool = True,
    tolerance: float = 1e-5,
    gradient_tolerance: float = 1e-4,
    seed: int = 0,
    tf32: bool = False,
) -> Report:
    """Run any Keras layer or model on every installed backend and compare outputs and gradients.

    Each backend gets a process of its own, which imports the function and calls it. Keras's own initializers draw
    other numbers on each backend, so the weights are those of the first backend everywhere.

    Args:
        build_fn: a function without arguments that gives a layer or model; it must be importable from a module (no
            lambda, nothing inside another function, nothing typed into `__main__`). Or its name, `"module:function"`.
        inputs: what to call it with: an array, or a shape (a tuple of ints) to be filled with normal numbers; or
            several of these in a list, the positional arguments; or in a dictionary, by the names of the inputs.
        backends: names; None for all that are installed.
        training: call it with `training=True`. (Keras's own dropout drops other elements on each backend.)
        gradients: compare gradients too, of every float input and every trainable weight, of the sum of the first
            float output weighted by fixed numbers. Inputs of whole numbers and bools have none.
        tolerance: of the outputs, as a share of the largest value.
        gradient_tolerance: likewise, of the gradients.
        seed: given to `random.set_seed` before building, and for shapes to be filled.
        tf32: let a GPU round float32 products to TF32.

    Returns:
        A `Report`: `passed`, `table()`, `rows` with every difference, `raise_for_differences()`. With one backend
        there is nothing to compare, so it has not passed.

    Raises:
        ValueError: if `build_fn` cannot be imported, an input is neither array nor shape, or there is no such backend.
        ParityError: if in some process `build_fn` raises, what it gives cannot be called, or is another architecture
            than in the first.

    Examples:
        >>> report = check("keras.layers:Softmax", (2, 5), backends=[keras.backend.backend()], gradients=False)
        >>> report.passed, report.failures()  # True, [] with several backends
        (False, ['nothing was compared'])
    """
    specification = {"training": training, "gradients": gradients, "tolerance": tolerance,
                     "gradient_tolerance": gradient_tolerance}  # fmt: skip
    return _run_own(FORWARD, build_fn, inputs, backends, seed, tf32, specification)


def check_saving(
    build_fn: Callable[[], keras.layers.Layer] | str,
    inputs: Inputs,
    *,
    backends: Sequence[str] | None = None,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Report:
    """Save a model as `.keras` on every installed backend and load each file on every one.

    With three backends these are nine pairs. The weights must come back to the bit and the outputs within the
    tolerance; nothing but the module of `build_fn` is imported before loading.

    Args:
        build_fn: gives a model, as in `check`; a layer is put into one.
        inputs: arrays or shapes, as in `check`.
        backends: names of the backends. Defaults to all that are installed.
        tolerance: of the outputs, as a share of the largest value.
        seed: of the weights.

    Returns:
        A `Report`, as `check`.

    Raises:
        ValueError, ParityError: as `check`.
    """
    return _run_own(FILES, build_fn, inputs, backends, seed, False, {"tolerance": tolerance})


def _run_own(
    kind: str,
    build_fn: Callable[[], keras.layers.Layer] | str,
    inputs: Any,
    backends: Sequence[str] | None,
    seed: int,
    tf32: bool,
    specification: Mapping[str, Any],
) -> Report:
    name = _importable(build_fn)
    named = isinstance(inputs, Mapping)
    if named and not (inputs and all(isinstance(key, str) for key in inputs)):
        raise ValueError(f"`inputs` must be named by texts, and there must be one at least. Received: {inputs!r}")
    arrays = _arrays(list(inputs.values()) if named else inputs, seed)
    backends = list(_backend.installed_backends() if backends is None else backends)
    for backend in backends:
        if backend not in _backend.installed_backends():
            raise ValueError(f"`backends` must be installed ones. Received: {backend!r}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.savez(folder / "inputs.npz", *arrays)
        own_code = {**specification, "function": name, "inputs": str(folder / "inputs.npz"), "seed": seed,
                    "names": list(inputs) if named else None}  # fmt: skip
        results = run(folder, backends, "own", [kind], tf32, own_code)
        for found in results:
            error = found.broken or found.checks[kind]["error"]
            if error:
                raise ParityError(f"{name} failed on {found.backend}: {error}")
        return Report("own", results, rows(results, [checks(own_code)[kind]]))


def _importable(build_fn: Callable[[], keras.layers.Layer] | str) -> str:
    """`"module:function"`, if that can be imported."""
    if isinstance(build_fn, str):
        name = build_fn
    else:
        name = f"{getattr(build_fn, '__module__', None)}:{getattr(build_fn, '__qualname__', None)}"
    module = name.partition(":")[0]
    if module in ("__main__", "None") or "<" in name:
        raise ValueError(
            "`build_fn` must be a function that another process can import: defined at the top of a module, not a "
            f"lambda, not inside another function, not in __main__. Received: {name}"
        )
    try:
        found = _import(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"`build_fn` cannot be imported: {error!r}. Received: {name}") from error
    if not callable(found):
        raise ValueError(f"`build_fn` must be a function. Received: {name}, a {type(found).__name__}")
    return name


def _import(name: str) -> Any:
    module, _, function = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return found


def _arrays(inputs: Any, seed: int) -> list[np.ndarray]:
    inputs = inputs if isinstance(inputs, list) else [inputs]
    arrays = []
    for i, given in enumerate(inputs):
        if isinstance(given, tuple) and all(isinstance(side, numbers.Integral) for side in given):
            arrays.append(random.normal(seed, (i,), given).astype("float32"))
        else:
            arrays.append(np.asarray(given))
        if arrays[-1].dtype.kind not in "fiub":
            raise ValueError(f"`inputs` must be arrays of numbers, or shapes. Received: {given!r}")
    return arrays


# In each process. -----------------------------------------------------------------------------------------------------


def checks(own_code: Mapping[str, Any]) -> dict[str, Check]:
    """The checks for a user's function, by name."""
    own = _OwnCode(own_code)
    outputs = Tolerance("relative", own_code["tolerance"])
    forward = {"outputs": outputs}
    if own_code.get("gradients"):
        forward["gradients"] = Tolerance("relative", own_code["gradient_tolerance"])
    name = own_code["function"]
    return {
        FORWARD: Check(FORWARD, forward, own.run, own.prepare, what=f"{name}, on the same weights"),
        FILES: Check(FILES, {"weights": EQUAL_BITS, "outputs": outputs}, own.load, own.save,
                     what=f"{name}, saved by every backend and loaded by every one"),
    }  # fmt: skip


class _OwnCode:
    """A user's function in one process, and the checks of what it builds."""

    def __init__(self, own_code: Mapping[str, Any]) -> None:
        self.own_code = own_code

    def inputs(self) -> list[np.ndarray]:
        return list(load_arrays(self.own_code["inputs"]).values())

    def call(self, layer: Any, inputs: Sequence[Any], **arguments: Any) -> Any:
        """Call a layer with its inputs one by one, or a functional model with a list. Named inputs are one argument."""
        if self.own_code["names"] is not None:
            return layer(dict(zip(self.own_code["names"], inputs, strict=True)), **arguments)
        if len(getattr(layer, "inputs", None) or ()) > 1:
            return layer(list(inputs), **arguments)
        return layer(*inputs, **arguments)

    def build(self) -> tuple[Any, list[np.ndarray]]:
        """Build the layer with its weights, and its inputs."""
        inputs = self.inputs()
        keras.utils.clear_session()  # else Keras goes on numbering: dense_1
        random.set_seed(self.own_code["seed"])
        layer = _import(self.own_code["function"])()
        self.call(layer, inputs)
        return layer, inputs

    # Outputs and gradients: the first backend's weights, on every backend.

    def prepare(self, scene: Scene) -> None:
        """Write the weights of this process."""
        layer, _ = self.build()
        save_arrays(scene.folder / "weights.npz", _weights(layer))

    def run(self, scene: Scene) -> Iterator[Measurement]:
        """Yield the outputs, and the gradients if they are requested."""
        layer, inputs = self.build()
        first = next(iter(scene.prepared))
        _give_weights(layer, load_arrays(scene.prepared[first] / "weights.npz"), scene.backend, first)
        training = self.own_code["training"]
        arguments = {"training": True} if training else {}
        outputs = keras.tree.flatten(_keeping_state(layer, lambda: self.call(layer, inputs, **arguments)))
        for i, output in enumerate(outputs):
            yield Measurement("outputs", f"output {i}", ops.convert_to_numpy(output))
        if not self.own_code["gradients"]:
            return
        floats = [i for i, array in enumerate(inputs) if array.dtype.kind == "f"]
        differentiable = [i for i, output in enumerate(outputs) if keras.backend.is_float_dtype(output.dtype)]
        if not differentiable or not (floats or layer.trainable_variables):
            return
        first_float = differentiable[0]

        def one_output(layer: Any, *values: Any) -> Any:
            given = dict(zip(floats, values, strict=True))
            whole = [given[i] if i in given else ops.convert_to_tensor(array) for i, array in enumerate(inputs)]
            return keras.tree.flatten(self.call(layer, whole, **arguments))[first_float]

        cotangent = random.normal(0, (0,), tuple(outputs[first_float].shape)).astype("float32")
        _, of_inputs, of_weights = output_and_gradients(layer, [inputs[i] for i in floats], cotangent, one_output)
        for i, gradient in zip(floats, of_inputs, strict=True):
            yield Measurement("gradients", f"input {(self.own_code['names'] or range(len(inputs)))[i]}", gradient)
        for path, gradient in of_weights.items():
            yield Measurement("gradients", path, gradient)

    # Files: each backend's, on every backend.

    def save(self, scene: Scene) -> None:
        """Write the model, its weights and its outputs."""
        layer, inputs = self.build()
        model = layer
        if not isinstance(layer, keras.Model):
            names = self.own_code["names"] or [None] * len(inputs)
            symbolic = [keras.Input(batch_shape=array.shape, dtype=array.dtype.name, name=name)
                        for array, name in zip(inputs, names, strict=True)]  # fmt: skip
            outputs = self.call(layer, symbolic)
            structure: Any = symbolic if len(symbolic) > 1 else symbolic[0]
            if self.own_code["names"]:
                structure = dict(zip(names, symbolic, strict=True))
            model = keras.Model(structure, outputs)
        model.save(scene.folder / "model.keras")
        outputs = {
            f"output {i}": ops.convert_to_numpy(x) for i, x in enumerate(keras.tree.flatten(self.call(layer, inputs)))
        }
        save_arrays(scene.folder / "outputs.npz", outputs)
        save_arrays(scene.folder / "weights.npz", _weights(model))

    def load(self, scene: Scene) -> Iterator[Measurement]:
        """Load the file of every backend, and yield weights and outputs."""
        _import(self.own_code["function"])  # registers the user's classes
        inputs = self.inputs()
        for writer, folder in scene.prepared.items():
            model = keras.saving.load_model(folder / "model.keras", compile=False)
            values = load_arrays(folder / "weights.npz").values()
            if len(values) != len(model.weights):
                raise ValueError(f"{writer} saved {len(values)} weights and {len(model.weights)} came back")
            for (name, weight), value in zip(by_path(model.weights).items(), values, strict=True):
                yield Measurement("weights", f"{name} from {writer}", ops.convert_to_numpy(weight), value)
            outputs = keras.tree.flatten(self.call(model, inputs))
            for output, (name, value) in zip(outputs, load_arrays(folder / "outputs.npz").items(), strict=True):
                yield Measurement("outputs", f"{name} from {writer}", ops.convert_to_numpy(output), value)


def _weights(layer: Any) -> dict[str, np.ndarray]:
    return {f"{i:04} {weight.path}": ops.convert_to_numpy(weight) for i, weight in enumerate(layer.weights)}


def _give_weights(layer: Any, weights: Mapping[str, np.ndarray], here: str, there: str) -> None:
    """Set the weights of the first backend, if they are of the same architecture."""
    mine = {name: value.shape for name, value in _weights(layer).items()}
    theirs = {name: value.shape for name, value in weights.items()}
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            raise ValueError(
                f"another architecture than on {there}: the weight {name[5:]} has the shape "
                f"{mine.get(name, '(none at all)')} on {here} and {theirs.get(name, '(none at all)')} on {there}"
            )
    for weight, value in zip(layer.weights, weights.values(), strict=True):
        weight.assign(value)


def _keeping_state(layer: Any, call: Callable[[], Any]) -> Any:
    """Return the result of `call`, and restore counters and moving averages, as `output_and_gradients` does."""
    state = [(variable, ops.convert_to_numpy(variable)) for variable in layer.non_trainable_variables]
    try:
        return call()
    finally:
        for variable, value in state:
            variable.assign(value)
