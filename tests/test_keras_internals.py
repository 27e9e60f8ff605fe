"""What this package relies on in Keras that is private there, and that one file alone touches it."""

import ast
import importlib
import pkgutil
import random
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.utils import module_utils

import keras_vit_edu
from keras_vit_edu import _keras_internals

pytestmark = pytest.mark.quick

PACKAGE = Path(keras_vit_edu.__file__).parent
# Private names of Python, torch and JAX.
OF_OTHERS = {"_getframe", "_exit", "_asdict", "_C", "_functorch", "_current_graph_task_id", "_trace"}
# Private names of ours that a second file uses: modules as `_files`, and a class method of `Preset`.
OURS = {file.stem for file in PACKAGE.glob("_*.py")} | {"_find"}
NAMES_A_FIELD = ("getattr", "hasattr", "setattr", "delattr")


@keras.saving.register_keras_serializable(package="test_keras_internals")
class Pair(keras.layers.Layer):
    """Two layers, one of them inside a Sequential."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(3, name="first")
        self.rest = keras.Sequential([keras.layers.Dense(2, name="second")], name="rest")

    def call(self, x):
        return self.rest(self.first(x))


def names_of(layers):
    return [layer.name for layer in layers]


# Layers. --------------------------------------------------------------------------------------------------------------


def test_layers_within_are_the_layer_itself_and_all_inside_it_outer_ones_first():
    pair = Pair(name="pair")
    names = names_of(_keras_internals.layers_within(pair))
    assert names[0] == "pair"
    assert sorted(names) == ["first", "pair", "rest", "second"]
    assert names.index("rest") < names.index("second")


def test_layers_within_names_a_layer_that_is_used_twice_once():
    dense, x = keras.layers.Dense(3, name="shared"), keras.Input((3,))
    model = keras.Model(x, dense(dense(x)))
    assert names_of(_keras_internals.layers_within(model)).count("shared") == 1


def test_two_models_of_one_configuration_have_their_layers_in_the_same_order():
    one, other = (keras.Sequential([Pair(name="pair"), keras.layers.Dense(1, name="head")]) for _ in range(2))
    one_list, other_list = map(_keras_internals.layers_within, (one, other))
    assert names_of(one_list)[1:] == names_of(other_list)[1:]  # the first is the model, whose name differs


def test_sublayers_are_the_layers_directly_inside():
    assert sorted(names_of(_keras_internals.sublayers(Pair()))) == ["first", "rest"]


def test_seed_generators_are_those_of_the_layer_itself():
    dropout = keras.layers.Dropout(0.5, seed=7)
    assert list(_keras_internals.seed_generators(dropout)) == [dropout.seed_generator]
    assert not _keras_internals.seed_generators(keras.Sequential([dropout]))


def test_the_stored_kernel_is_a_variable_that_stays_as_it_is_under_lora():
    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    stored = _keras_internals.stored_kernel(dense)
    before = keras.ops.convert_to_numpy(stored)
    assert any(stored is weight for weight in dense.weights)
    dense.enable_lora(2, b_initializer="ones")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(_keras_internals.stored_kernel(dense)), before)
    update = np.matmul(*map(keras.ops.convert_to_numpy, (dense.lora_kernel_a, dense.lora_kernel_b)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(dense.kernel), before + update, rtol=1e-6)
    assert _keras_internals.stored_kernel(keras.layers.Flatten()) is None


def test_the_origin_of_an_output_is_its_last_layer_and_what_goes_into_it():
    x = keras.Input((3,))
    hidden = keras.layers.Dense(4)(x)
    head = keras.layers.Dense(2)
    operation, taken = _keras_internals.origin(head(hidden))
    assert operation is head
    assert len(taken) == 1
    assert taken[0] is hidden


def test_the_origin_of_a_layer_that_is_called_twice_is_the_call_that_made_the_tensor():
    dense, x = keras.layers.Dense(3), keras.Input((3,))
    once = dense(x)
    twice = dense(once)
    assert _keras_internals.origin(once)[1][0] is x
    assert _keras_internals.origin(twice)[1][0] is once


# Variables. -----------------------------------------------------------------------------------------------------------


def test_a_variable_holds_a_value_that_no_stateless_scope_hides():
    variable = keras.Variable(np.zeros(2, "float32"))
    held, ones = _keras_internals.held_value(variable), keras.ops.ones(2)
    with keras.StatelessScope(state_mapping=[(variable, ones)]):
        assert variable.value is ones
        assert _keras_internals.held_value(variable) is held
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(held), [0, 0])


def test_a_variable_without_a_value_yet_holds_none():
    with keras.StatelessScope():
        variable = keras.Variable(lambda shape, dtype=None: keras.ops.zeros(shape, dtype), (2,), "float32")
        assert _keras_internals.held_value(variable) is None


def test_what_a_variable_is_set_to_hold_is_that_tensor_itself():
    variable = keras.Variable(np.zeros(2, "float32"))
    before = _keras_internals.held_value(variable)
    variable.assign(np.ones(2, "float32"))
    _keras_internals.set_held_value(variable, before)
    assert _keras_internals.held_value(variable) is before
    assert variable.value is before


# Training. ------------------------------------------------------------------------------------------------------------


def test_the_arguments_of_compile_are_the_objects_that_were_given():
    def loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred))

    model, optimizer = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), keras.optimizers.SGD(0.5)
    model.compile(optimizer, loss, metrics=["mae"])
    arguments = _keras_internals.compile_arguments(model)
    assert arguments["optimizer"] is optimizer
    assert arguments["loss"] is loss
    assert arguments["metrics"] == ["mae"]
    model.compile(**arguments)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_the_moving_averages_are_in_the_order_of_the_trainable_weights(wrap):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    optimizer = wrap(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
    optimizer.build(model.trainable_variables)
    averages = _keras_internals.moving_averages(optimizer)
    assert [tuple(average.shape) for average in averages] == [tuple(w.shape) for w in model.trainable_variables]


def test_weight_decay_spares_the_variables_that_were_excluded():
    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(dense.trainable_variables)
    assert _keras_internals.has_weight_decay(optimizer, dense.kernel)
    assert not _keras_internals.has_weight_decay(optimizer, dense.bias)


# Random numbers, loading, TensorFlow. ---------------------------------------------------------------------------------


def test_a_noted_seed_is_keras_s_and_its_next_seeds_come_from_python_s_random():
    keras.random.uniform((1,))  # a generator without a seed is made, and is to be forgotten
    drawn = []
    for _ in range(2):
        random.seed(5)
        _keras_internals.note_seed(5)
        assert keras.src.utils.rng_utils.get_random_seed() == 5
        drawn.append(keras.ops.convert_to_numpy(keras.random.uniform((4,))))
    np.testing.assert_array_equal(*drawn)


def test_safe_mode_wins_over_enable_unsafe_deserialization():
    with pytest.warns(UserWarning, match="lambda"):
        described = keras.saving.serialize_keras_object(lambda x: x + 1)
    keras.config.enable_unsafe_deserialization()
    try:
        assert keras.saving.deserialize_keras_object(described)(2) == 3
        with _keras_internals.safe_mode(), pytest.raises(ValueError, match="lambda"):
            keras.saving.deserialize_keras_object(described)
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow is the backend")
def test_tensorflow_that_is_left_out_is_not_available_to_keras_until_it_is_let_in(monkeypatch):
    for module in (module_utils.tensorflow, module_utils.gfile):
        monkeypatch.setattr(module, "_available", None)  # as if Keras had not looked yet
    _keras_internals.leave_tensorflow_out()
    assert not module_utils.tensorflow.available
    assert not module_utils.gfile.available
    _keras_internals.let_tensorflow_in()
    assert module_utils.tensorflow._available is None  # it looks when it is asked the next time
    assert module_utils.gfile._available is None


# One file alone. ------------------------------------------------------------------------------------------------------


def defined(tree):
    """The names that a file defines: functions, classes, variables, `self.name = ...`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def looked_up(tree):
    """The names that are looked up in an object, by a dot or by `getattr` and the like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr"):
            yield ast.unparse(node.args[1]).lstrip("f").strip("'\"")


def private_names_of_keras(text):
    tree = ast.parse(text)
    known = {*defined(tree), *OF_OTHERS, *OURS}
    yield from (
        name for name in looked_up(tree) if name.startswith("_") and not name.endswith("__") and name not in known
    )
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None)
            names = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            yield from (name for name in names if name.startswith(("keras.src", "keras._", "keras_hub.src")))
        elif isinstance(node, ast.Attribute) and ast.unparse(node).endswith("keras.src"):
            yield "keras.src"


@pytest.mark.parametrize(
    "text",
    [
        "layer._flatten_layers()",
        "self._seed_generators",
        "getattr(layer, '_kernel', None)",
        "getattr(layer, f'_{argument}')",
        "import keras.src.layers",
        "from keras.src import backend",
        "from keras import _tf_keras",
        "keras.src.backend",
    ],
)
def test_a_private_name_of_keras_is_found(text):
    assert list(private_names_of_keras(text))


@pytest.mark.parametrize("text", ["self._own = 1\nself._own", "def _f(): ...\nmodule._f", "sys._getframe()", "a.__b__"])
def test_other_names_are_not_taken_for_keras_s(text):
    assert not list(private_names_of_keras(text))


@pytest.mark.any_backend
def test_no_other_file_touches_a_private_name_of_keras():
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "_keras_internals.py"]
    found = {file.relative_to(PACKAGE): list(private_names_of_keras(file.read_text("utf-8"))) for file in files}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.any_backend
def test_no_class_of_ours_overrides_a_private_name_of_its_keras_class():
    overridden = []
    for cls in classes_of_the_package():
        theirs = {name for base in cls.__mro__ if base.__module__.startswith("keras.") for name in vars(base)}
        own = {name for name in vars(cls) if name.startswith("_") and not name.endswith("__")}
        overridden += [f"{cls.__qualname__}.{name}" for name in own & theirs]
    assert overridden == []


def classes_of_the_package():
    for module in pkgutil.walk_packages([str(PACKAGE)], "keras_vit_edu."):
        if not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and value.__module__ == module.name:
                    yield value
