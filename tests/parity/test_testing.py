"""The helpers for tests of layers: they pass on layers that are right, ours among them, and fail on others."""

import keras
import numpy as np
import pytest

from keras_vit_edu._backend import installed_backends
from keras_vit_edu.parity import testing
from tests.parity import functions

ARGUMENTS = {"width": 3, "scale": 2.0, "name": "mine", "trainable": False, "dtype": "mixed_bfloat16"}


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """Right in everything; those below are wrong in one thing each."""

    def __init__(self, width=2, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.scale = width, scale

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.width))

    def call(self, x):
        return self.scale * keras.ops.matmul(x, self.kernel)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "scale": self.scale}


@keras.saving.register_keras_serializable(package="tests")
class ForgetsAKey(Scaled):
    def get_config(self):
        return {name: value for name, value in super().get_config().items() if name != "scale"}


@keras.saving.register_keras_serializable(package="tests")
class SaysAnotherValue(Scaled):
    def get_config(self):
        return {**super().get_config(), "scale": 7.0}


@keras.saving.register_keras_serializable(package="tests")
class FollowsTheSettings(Scaled):
    def __init__(self, width=2, scale=1.0, **kwargs):
        super().__init__(width, scale, **kwargs)
        if keras.config.image_data_format() == "channels_first":
            self.scale = 5.0


class PromisesAnotherShape(Scaled):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.width + 1)


class BuildsLate(Scaled):
    def call(self, x):
        if not hasattr(self, "late"):
            self.late = True
            self._tracker.unlock()
            self.offset = self.add_weight(name="offset", shape=(self.width,))
        return super().call(x) + self.offset


def test_a_layer_that_is_right():
    testing.assert_config_round_trip(Scaled, ARGUMENTS)
    testing.assert_builds_and_calls(lambda: Scaled(3), np.ones((2, 4), "float32"))


@pytest.mark.parametrize(
    ("cls", "arguments", "complaint"),
    [
        (Scaled, {"width": 3, "scale": 2.0}, "dtype, name, trainable missing, none too many"),
        (Scaled, {**ARGUMENTS, "depth": 1}, "none missing, depth too many"),
        (Scaled, {**ARGUMENTS, "scale": 1.0}, r"scale=1\.0 is the default"),
        (ForgetsAKey, ARGUMENTS, "scale missing"),
        (SaysAnotherValue, ARGUMENTS, r"scale was 2\.0, the configuration has 7\.0"),
        (FollowsTheSettings, ARGUMENTS, r"scale was 2\.0 and came back as 5\.0"),
    ],
)
def test_a_configuration_that_is_wrong(cls, arguments, complaint):
    with pytest.raises(AssertionError, match=complaint):
        testing.assert_config_round_trip(cls, arguments)


def test_the_global_settings_are_left_as_they_were():
    before = keras.config.dtype_policy(), keras.config.image_data_format()
    with pytest.raises(AssertionError):
        testing.assert_config_round_trip(FollowsTheSettings, ARGUMENTS)
    assert (keras.config.dtype_policy(), keras.config.image_data_format()) == before


@pytest.mark.parametrize(
    ("cls", "complaint"), [(PromisesAnotherShape, r"promises \[\(\(2, 4\)"), (BuildsLate, "building makes")]
)
def test_a_layer_that_builds_or_promises_something_else(cls, complaint):
    with pytest.raises(AssertionError, match=complaint):
        testing.assert_builds_and_calls(lambda: cls(3), np.ones((2, 4), "float32"))


TOKENS, IMAGES = np.zeros((2, 6, 4), "float32"), np.zeros((2, 4, 6, 3), "float32")


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (functions.patches, [IMAGES]),
        (functions.patch_encoder, [TOKENS]),
        (functions.attention, [TOKENS, TOKENS]),
        (functions.transformer_block, [TOKENS]),
        (functions.portable_dropout, [TOKENS]),
    ],
)
def test_our_layers_build_and_call(make, inputs):
    testing.assert_builds_and_calls(make, *inputs)


@pytest.mark.any_backend
def test_our_block_saves_and_loads_and_is_the_same_on_every_backend():
    testing.assert_saves_and_loads(functions.transformer_block, (2, 6, 4))
    if len(installed_backends()) > 1:
        testing.assert_same_on_every_backend(functions.transformer_block, (2, 6, 4))
