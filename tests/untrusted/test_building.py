"""No more of a stranger's model is built than its weights, or the stated limits, allow."""

import json
import os
import sys
import threading

import keras
import numpy as np
import pytest

from keras_vit_edu._building import Budget, TooLarge, unfilled, within
from keras_vit_edu._configuration import check_numbers
from keras_vit_edu.models import CNNClassifier, ViTClassifier, size_limits
from keras_vit_edu.models.flat_config import flattened
from keras_vit_edu.models.preset import Preset
from tests.support import to_numpy, vit_classifier

SMALL = {
    "projection_dim": 6,
    "num_layers": 1,
    "num_heads": 2,
    "key_dim": 3,
    "mlp_dim": 8,
    "head": "mean",
    "head_units": (),
}


def resident():
    """The memory that this process has now, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_the_first_variable_beyond_the_budget_is_not_made():
    layer = keras.layers.Dense(10)
    with within(Budget(elements=999, variables=10, layers=10)), pytest.raises(TooLarge, match="more elements"):
        layer.build((None, 100))
    assert not layer.weights


def test_layers_and_variables_count():
    with within(Budget(elements=100, variables=100, layers=2)), pytest.raises(TooLarge, match="more layers"):
        [keras.layers.Dense(1) for _ in range(3)]
    with within(Budget(elements=100, variables=1, layers=10)), pytest.raises(TooLarge, match="more variables"):
        keras.layers.Dense(1).build((None, 1))


def test_afterwards_and_in_other_threads_everything_may_be_built():
    before = keras.Variable.__init__, keras.Layer.__init__
    built = []
    with within(Budget(elements=1, variables=1, layers=1)):
        thread = threading.Thread(target=lambda: built.append(keras.layers.Dense(10)(np.zeros((1, 100)))))
        thread.start()
        thread.join()
    assert len(built) == 1
    assert (keras.Variable.__init__, keras.Layer.__init__) == before
    assert "__init__" not in vars(keras.Variable) or before[0] is vars(keras.Variable)["__init__"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells of it")
def test_a_variable_that_is_filled_later_takes_no_memory_before():
    keras.Variable(unfilled((10, 10), "float32"))
    before = resident()
    with within(Budget(10**9, 1, 1, is_filled_later=True)):
        variable = keras.Variable("zeros", shape=(10_000, 10_000), dtype="float32")
    assert resident() - before < 40  # of 400
    assert tuple(variable.shape) == (10_000, 10_000)


def test_it_takes_the_value_that_it_gets():
    with within(Budget(100, 1, 1, is_filled_later=True)):
        variable = keras.Variable("ones", shape=(2, 3), dtype="float32")
    variable.assign(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(to_numpy(variable.value), np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("config", [{"a": [{"b": 10**7}]}, {"a": -(10**7)}, {"a": 10**400}, {"seed": 2**64}])
def test_numbers_that_no_model_has(config):
    with pytest.raises(ValueError, match="at most 1,000,000"):
        check_numbers(config)
    check_numbers({"seed": 2**31, "a": [True, None, 1e6, 10**6, "x"]})


# Presets. -------------------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.parametrize("name", sorted(Preset.presets))
def test_the_bound_on_parameters_is_one(name):
    model = Preset.from_preset(name, load_weights=False)
    arguments = flattened(model.get_config())
    assert model.count_params() <= size_limits.parameters_at_most(arguments) <= 4 * model.count_params()


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "arguments",
    [
        {"image_shape": (24, 16, 3), "patch_size": (8, 4), "stem": "shifted"},
        {"image_shape": (32, 32, 3), "patch_size": 8, "stem": "conv", "stem_filters": (3, 5, 7)},
        {"locality": 1.0, "num_prefix_tokens": 3, "head": "flatten", "head_units": (50, 20)},
        {"image_shape": (3, 28, 28), "data_format": "channels_first", "patch_size": 4},
    ],
)
def test_the_bound_on_parameters_is_one_for_other_arguments(arguments):
    model = vit_classifier(**{**SMALL, **arguments})
    assert model.count_params() <= size_limits.parameters_at_most({**SMALL, **arguments})
    cnn = {"filters": (5, 7), "convolutions": 3, "head_units": (11,), "image_shape": (13, 10, 3)}
    assert CNNClassifier(**cnn).count_params() <= size_limits.parameters_at_most(cnn)


ABSURD = [
    *((name, value) for name in size_limits.LIMITS
      for value in (10**7, 10**12, 10**400, [10**6] * 4, "x", None, {})),
    ("layer_norm_epsilon", 10**400), ("layer_norm_epsilon", "x"), ("dtype", 5), ("dtype", {}), ("activation", 5),
    ("kernel_initializer", 5), ("head_units", [9_000] * 63), ("frozen_layers", 5), ("dropout", 10**400),
    ("locality", 10**400), ("name", 5), ("data_format", []), ("stem_dropout", "x"), ("trainable", "x"),
]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells of it")
@pytest.mark.parametrize("model_class", [ViTClassifier, CNNClassifier])
def test_absurd_sizes_are_refused_with_weights_and_without(model_class, tmp_path):
    model = vit_classifier(**SMALL) if model_class is ViTClassifier else CNNClassifier(filters=(2,), head_units=())
    model.save_to_preset(tmp_path / "preset")
    file = tmp_path / "preset" / "config.json"
    described = json.loads(file.read_text())
    before = resident()
    for name, value in ABSURD:
        if name not in described["config"]:
            continue
        file.write_text(json.dumps({**described, "config": {**described["config"], name: value}}))
        for load_weights in (True, False):
            try:
                Preset.from_preset(tmp_path / "preset", load_weights=load_weights)
            except ValueError as error:
                assert str(error), (name, value)  # noqa: PT017
            assert resident() - before < 500, (name, value)


def test_an_override_is_limited_as_well():
    with pytest.raises(ValueError, match="`projection_dim` of a preset may be at most"):
        Preset.from_preset("vit_mnist_program_p", load_weights=False, projection_dim=10**12)
    with pytest.raises(ValueError, match="at most 1,000,000,000 parameters"):
        Preset.from_preset("vit_mnist_program_p", load_weights=False, projection_dim=60_000, mlp_dim=60_000)


def test_what_a_preset_draws_does_not_depend_on_the_guard():
    """Without stored weights the draws are those of the constructor."""
    keras.utils.set_random_seed(3)
    ours = Preset.from_preset("vit_mnist_d16", load_weights=False)
    keras.utils.set_random_seed(3)
    plain = vit_classifier(**{**ours.get_config(), "name": "plain"})
    for one, other in zip(ours.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one.value), to_numpy(other.value))
