"""`ViTBackbone`: from an image to tokens."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit_edu.initializers import HeNormal
from keras_vit_edu.layers import ConvStem, RelativePositionBias, ShiftedPatches, TransformerBlock
from keras_vit_edu.models import ViTBackbone
from keras_vit_edu.parity import oracle, output_and_gradients
from tests.support import (
    assert_agree,
    compiled,
    constructor_arguments,
    copy_weights,
    on_one_backend,
    random_weights,
    relative_difference,
    revived,
    to_numpy,
)

pytestmark = pytest.mark.lowest

SIZES = {"projection_dim": 8, "num_layers": 2, "num_heads": 2, "key_dim": 3, "mlp_dim": 10}

# Every argument, none at its default.
NON_DEFAULT = {
    "image_shape": (3, 8, 12),
    "patch_size": (4, 4),
    "projection_dim": 6,
    "num_layers": 2,
    "num_heads": 3,
    "key_dim": 5,
    "mlp_dim": 7,
    "num_prefix_tokens": 2,
    "dropout": 0.2,
    "attention_dropout": 0.3,
    "activation": keras.activations.relu,
    "output_activation": keras.activations.tanh,
    "use_bias": False,
    "layer_norm_epsilon": 1e-3,
    "kernel_initializer": HeNormal(seed=3),
    "data_format": "channels_first",
    "stem": ConvStem((4, 5), (1, 2), (2, 1), 0.15, "layer", activation="relu", kernel_initializer=HeNormal(seed=4)),
    "position_bias": RelativePositionBias(locality=0.5),
    "stochastic_depth": 0.25,
    "hidden_dropout": 0.4,
    "projection_dropout": 0.5,
    "embedding_dropout": 0.6,
    "frozen_layers": ["patch_encoder", "transformer_block_1"],
    "dtype": keras.DTypePolicy("mixed_bfloat16"),
    "name": "mine",
    "trainable": True,
}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("image_shape", "patch_size", "num_prefix_tokens", "tokens"),
    [
        ((28, 28, 1), 7, 0, 16),
        ((28, 28, 1), 7, 1, 17),
        ((8, 12, 3), 4, 0, 6),
        ((8, 12, 1), (4, 2), 2, 14),
        pytest.param(
            (6, 6, 3), (6, 6), 0, 1, marks=pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
        ),
    ],
)
def test_an_image_becomes_prefix_tokens_and_a_token_per_patch(image_shape, patch_size, num_prefix_tokens, tokens, rng):
    backbone = ViTBackbone(image_shape, patch_size, num_prefix_tokens=num_prefix_tokens, **SIZES)
    random_weights(backbone)
    images = rng.random((2, *image_shape), "float32")
    output = backbone(images)
    assert backbone.output_shape == (None, tokens, 8)
    assert_agree(to_numpy(output), oracle_tokens(backbone, images), 2e-6)


def test_other_activations_and_epsilon_and_no_bias(rng):
    arguments = {"activation": "relu", "output_activation": "tanh", "use_bias": False, "layer_norm_epsilon": 0.1}
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES, **arguments)
    random_weights(backbone)
    images = rng.random((2, 8, 12, 1), "float32")
    assert_agree(to_numpy(backbone(images)), oracle_tokens(backbone, images), 2e-6)


@pytest.mark.parametrize(
    ("arguments", "image_shape"),
    [
        ({}, (8, 12, 1)),
        ({"strides": (1, 4)}, (4, 8, 3)),
        ({"strides": (1, 1), "pools": (2, 2)}, (8, 12, 1)),
    ],
)
def test_a_stem_of_convolutions(arguments, image_shape, rng):
    backbone = ViTBackbone(image_shape, 4, stem=ConvStem((3, 5), **arguments), **SIZES)
    random_weights(backbone)
    images = rng.random((2, *image_shape), "float32")
    output = to_numpy(backbone(images))
    assert output.shape[1] == backbone.grid_size[0] * backbone.grid_size[1]
    assert_agree(output, oracle_tokens(backbone, images), 2e-6)


@pytest.mark.parametrize("image_shape", [(8, 12, 1), (4, 8, 3)])
def test_a_stem_of_shifted_patches(image_shape, rng):
    backbone = ViTBackbone(image_shape, 4, stem=ShiftedPatches(4), **SIZES)
    random_weights(backbone)
    images = rng.random((2, *image_shape), "float32")
    assert_agree(to_numpy(backbone(images)), oracle_tokens(backbone, images), 2e-6)


@pytest.mark.parametrize("num_prefix_tokens", [0, 2])
def test_attention_that_knows_how_patches_stand_to_each_other(num_prefix_tokens, rng):
    backbone = ViTBackbone(
        (8, 12, 1), 4, position_bias=RelativePositionBias(locality=1.0), num_prefix_tokens=num_prefix_tokens, **SIZES
    )
    images = rng.random((2, 8, 12, 1), "float32")
    assert_agree(to_numpy(backbone(images)), oracle_tokens(backbone, images), 2e-6)
    random_weights(backbone)
    expected = oracle_tokens(backbone, images)
    assert_agree(to_numpy(backbone(images)), expected, 2e-6)
    assert [block.position_bias.locality for block in backbone.transformer_blocks] == [1, 1]
    backbone.get_layer("transformer_block_1").position_bias.table.assign(np.zeros((2, 15)))
    assert relative_difference(to_numpy(backbone(images)), expected) > 1e-4


@pytest.mark.parametrize(
    "arguments", [{"stem": ShiftedPatches(4)}, {"position_bias": RelativePositionBias(locality=1.0)}]
)
@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 5e-6), *on_one_backend(("mixed_bfloat16", 5e-2))])
def test_means_for_small_data_compiled_with_channels_first_and_in_half_precision(arguments, policy, tolerance, rng):
    backbone = ViTBackbone((1, 8, 12), 4, data_format="channels_first", dtype=policy, **SIZES, **arguments)
    random_weights(backbone)
    images = rng.random((2, 1, 8, 12), "float32")
    expected = oracle_tokens(backbone, images)
    assert_agree(to_numpy(compiled(backbone)(keras.ops.convert_to_tensor(images))), expected, tolerance)
    after, scores = backbone.intermediates(images), backbone.attention_scores(images)
    assert_agree(to_numpy(after["encoder_norm"]), expected, tolerance)
    assert [tuple(of_a_block.shape) for of_a_block in scores] == [(2, 2, 6, 6)] * 2


def test_stochastic_depth_acts_in_training_only_and_grows_over_the_blocks(rng):
    backbone = ViTBackbone((8, 12, 1), 4, stochastic_depth=0.75, dropout=0, attention_dropout=0, **SIZES)
    images = rng.random((4, 8, 12, 1), "float32")
    assert [block.stochastic_depth for block in backbone.transformer_blocks] == [0.375, 0.75]
    still = to_numpy(backbone(images))
    first, second = (to_numpy(backbone(images, training=True)) for _ in range(2))
    assert (first != still).any()
    assert (first != second).any()
    np.testing.assert_array_equal(to_numpy(backbone(images)), still)


def oracle_tokens(backbone: ViTBackbone, images: np.ndarray) -> np.ndarray:
    weights = {weight.path.removeprefix(f"{backbone.name}/"): to_numpy(weight) for weight in backbone.weights}
    return oracle.vit_backbone(weights, images, backbone.get_config())


@pytest.mark.parametrize("argument", sorted(set(NON_DEFAULT) - {"trainable"}))
def test_no_argument_is_at_its_default_below(argument):
    assert NON_DEFAULT[argument] != inspect.signature(ViTBackbone.__init__).parameters[argument].default


def test_config_keys_are_the_constructors_arguments():
    assert set(NON_DEFAULT) == constructor_arguments(ViTBackbone)
    assert set(ViTBackbone(**NON_DEFAULT).get_config()) == set(NON_DEFAULT)


def test_every_argument_survives_its_config_and_json():
    backbone = ViTBackbone(**NON_DEFAULT)
    for copy in (revived(backbone), ViTBackbone.from_config(backbone.get_config())):
        assert copy.get_config() == backbone.get_config()
        for argument, value in NON_DEFAULT.items():
            if argument == "kernel_initializer":
                assert isinstance(copy.kernel_initializer, HeNormal)
                assert copy.kernel_initializer.get_config()["seed"] == 3
            elif argument == "dtype":
                assert copy.dtype_policy.name == "mixed_bfloat16"
            elif argument == "stem":
                assert copy.stem.strides == (1, 2)
            elif argument == "position_bias":
                assert copy.transformer_blocks[1].position_bias.locality == 0.5
            else:
                assert getattr(copy, argument) == value, argument


def test_arguments_reach_the_layers():
    backbone = ViTBackbone(**NON_DEFAULT)
    for block in backbone.transformer_blocks:
        expected = {
            key: NON_DEFAULT[key]
            for key in ("num_heads", "key_dim", "mlp_dim", "dropout", "attention_dropout", "use_bias")
        }
        assert (block.mlp_output_dropout.rate, block.mlp_hidden_dropout.rate) == (0.2, 0.4)
        assert (block.attention_output_dropout.rate, block.attention.score_dropout.rate) == (0.5, 0.3)
        assert {key: getattr(block, key) for key in expected} == expected
        assert block.activation is keras.activations.relu
        assert block.output_activation is keras.activations.tanh
        assert block.layer_norm_epsilon == 1e-3
        assert isinstance(block.kernel_initializer, HeNormal)
    assert [block.stochastic_depth for block in backbone.transformer_blocks] == [0.125, 0.25]
    assert backbone.get_layer("embedding_dropout").rate == 0.6
    stem = backbone.get_layer("conv_stem")
    assert (stem.filters, stem.strides, stem.pools, stem.dropout) == ((4, 5), (1, 2), (2, 1), 0.15)
    assert stem.normalization == "layer"
    assert stem.data_format == "channels_first"
    assert stem.activation is keras.activations.relu
    assert isinstance(stem.kernel_initializer, HeNormal)
    assert backbone.get_layer("encoder_norm").epsilon == 1e-3
    assert backbone.get_layer("patch_encoder").num_prefix_tokens == 2
    assert backbone.get_layer("patch_encoder").grid_size == (2, 3)
    assert {layer.compute_dtype for layer in backbone.layers if layer.weights} == {"bfloat16"}


def test_a_copy_made_under_other_global_settings_computes_the_same(rng):
    backbone = ViTBackbone((8, 12, 3), (4, 3), dtype="float32", **SIZES)
    random_weights(backbone)
    images = rng.random((2, 8, 12, 3), "float32")
    expected = to_numpy(backbone(images))
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    copy = revived(backbone)
    copy_weights(backbone, copy)
    np.testing.assert_array_equal(to_numpy(copy(images)), expected)


def test_global_settings_are_the_defaults():
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = ViTBackbone((3, 8, 12), 4, **SIZES)
    assert backbone.data_format == "channels_first"
    assert backbone.output.dtype == "bfloat16"
    assert backbone.grid_size == (2, 3)


def test_channels_first_gives_the_same_tokens(rng):
    last = ViTBackbone((8, 12, 3), (4, 3), data_format="channels_last", **SIZES)
    first = ViTBackbone((3, 8, 12), (4, 3), data_format="channels_first", **SIZES)
    random_weights(last)
    copy_weights(last, first)
    images = rng.random((2, 8, 12, 3), "float32")
    np.testing.assert_array_equal(to_numpy(first(images.transpose(0, 3, 1, 2))), to_numpy(last(images)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", *on_one_backend("float32", "mixed_float16", "bfloat16")])
def test_shapes_and_dtypes_agree_symbolically_eagerly_and_compiled(policy, rng):
    backbone = ViTBackbone((8, 12, 1), 4, num_prefix_tokens=1, dtype=policy, **SIZES)
    dtype = keras.DTypePolicy(policy).compute_dtype
    for batch in (None, 1, 7):
        symbolic = backbone(keras.KerasTensor((batch, 8, 12, 1)))
        assert (symbolic.shape, symbolic.dtype) == ((batch, 7, 8), dtype)
        assert backbone.compute_output_shape((batch, 8, 12, 1)) == (batch, 7, 8)
    for batch in (1, 7):
        images = ops.convert_to_tensor(rng.random((batch, 8, 12, 1), "float32"))
        for output in (backbone(images), compiled(backbone)(images)):
            assert tuple(output.shape) == (batch, 7, 8)
            assert keras.backend.standardize_dtype(output.dtype) == dtype


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_close_to_float32(policy, rng):
    backbone = ViTBackbone((8, 12, 3), 4, **SIZES)
    random_weights(backbone)
    mixed = ViTBackbone((8, 12, 3), 4, dtype=policy, **SIZES)
    copy_weights(backbone, mixed)
    images = rng.random((2, 8, 12, 3), "float32")
    difference = relative_difference(to_numpy(mixed(images)), to_numpy(backbone(images)))
    assert 0 < difference <= 2e-2


def test_whole_numbers_of_numpy_are_whole_numbers():
    sizes = {name: np.int64(size) for name, size in SIZES.items()}
    backbone = ViTBackbone((np.int32(8), 12, 1), np.int64(4), num_prefix_tokens=np.int64(1), **sizes)
    assert revived(backbone).output_shape == (None, 7, 8)


@pytest.mark.parametrize("num_prefix_tokens", [2, *on_one_backend(0)])
def test_gradients_reach_every_trainable_weight(num_prefix_tokens, rng):
    backbone = ViTBackbone((8, 12, 1), 4, num_prefix_tokens=num_prefix_tokens, **SIZES)
    random_weights(backbone, scale=0.8)
    images, cotangent = rng.random((2, 8, 12, 1), "float32"), rng.normal(size=backbone.output_shape[1:])
    _, _, gradients = output_and_gradients(backbone, [images], cotangent.astype("float32"))
    assert len(gradients) == len(backbone.weights)
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, gradient in gradients.items():
        if path.endswith("k_dense/bias"):  # adds the same to every score of a row, which the softmax takes off again
            assert np.abs(gradient).max() < 1e-5 * largest
        else:
            assert np.abs(gradient).max() > 1e-4 * largest, path


def test_blocks_are_at_hand_in_their_order():
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES)
    blocks = backbone.transformer_blocks
    assert [block.name for block in blocks] == ["transformer_block_0", "transformer_block_1"]
    assert all(isinstance(block, TransformerBlock) for block in blocks)


def test_the_output_of_any_layer_can_be_read(rng):
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES)
    first_block = keras.Model(backbone.input, backbone.get_layer("transformer_block_0").output)
    images = rng.random((2, 8, 12, 1), "float32")
    tokens = backbone.get_layer("patch_encoder")(backbone.get_layer("patches")(images))
    np.testing.assert_array_equal(to_numpy(first_block(images)), to_numpy(backbone.transformer_blocks[0](tokens)))


@pytest.mark.parametrize(
    "arguments", [{"num_prefix_tokens": 2}, {"stem": ConvStem((3, 5))}, {"stem": ShiftedPatches(4)}]
)
def test_tokens_and_scores_inside_are_those_of_the_equations(arguments, rng):
    backbone = ViTBackbone((8, 12, 1), 4, layer_norm_epsilon=0.1, **SIZES, **arguments)
    random_weights(backbone)
    images = rng.random((2, 8, 12, 1), "float32")
    after, scores = backbone.intermediates(images), backbone.attention_scores(images)
    assert list(after) == ["patch_encoder", "transformer_block_0", "transformer_block_1", "encoder_norm"]
    tokens = to_numpy(after["patch_encoder"])
    for i, block in enumerate(backbone.transformer_blocks):
        weights = {w.path.partition(f"{block.name}/")[2]: to_numpy(w) for w in block.trainable_weights}
        tokens, expected = oracle.transformer_block(weights, tokens, num_heads=2, epsilon=0.1)
        assert_agree(to_numpy(after[block.name]), tokens, 2e-6)
        assert_agree(to_numpy(scores[i]), expected, 2e-6)
    assert_agree(to_numpy(after["encoder_norm"]), oracle_tokens(backbone, images), 2e-6)


@pytest.mark.parametrize(
    "rate", ["dropout", *on_one_backend("embedding_dropout", "projection_dropout", "stochastic_depth")]
)
def test_a_look_inside_is_without_dropout_and_takes_any_array(rate, rng):
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES, **{"dropout": 0, "attention_dropout": 0, rate: 0.5})
    images = rng.random((2, 8, 12, 1), "float32")
    expected = to_numpy(backbone(images))
    for array in (images, images.astype("float64"), keras.ops.convert_to_tensor(images)):
        assert_agree(to_numpy(backbone.intermediates(array)["encoder_norm"]), expected, 1e-6)
    assert relative_difference(to_numpy(backbone(images, training=True)), expected) > 0.05


def test_one_seeded_initializer_gives_every_kernel_numbers_of_its_own():
    backbone = ViTBackbone((8, 12, 1), 4, kernel_initializer=HeNormal(seed=3), **SIZES)
    kernels = [w for w in backbone.weights if "transformer_block" in w.path and w.name == "kernel"]
    assert len(kernels) == 12
    assert len({to_numpy(kernel).tobytes() for kernel in kernels}) == 12


def test_a_seeded_initializer_fixes_the_kernels_of_the_blocks():
    first, second = (ViTBackbone((8, 12, 1), 4, kernel_initializer=HeNormal(seed=3), **SIZES) for _ in range(2))
    for path in ("attention/q_dense/kernel", "mlp_output/kernel"):
        kernels = [
            to_numpy(next(w for w in backbone.weights if w.path.endswith(f"transformer_block_1/{path}")))
            for backbone in (first, second)
        ]
        np.testing.assert_array_equal(*kernels)


def test_what_is_frozen_stays_frozen_in_a_copy():
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES)
    backbone.transformer_blocks[0].trainable = False
    copy = revived(backbone)
    assert copy.frozen_layers == ["transformer_block_0"]
    assert [w.path for w in copy.trainable_weights] == [w.path for w in backbone.trainable_weights]


def test_a_frozen_backbone_stays_frozen_in_a_copy_until_someone_says_otherwise():
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES)
    backbone.trainable = False
    copy = revived(backbone)
    assert (copy.trainable, copy.trainable_weights) == (False, [])
    assert not copy.get_layer("patch_encoder").trainable
    copy.trainable = True
    assert len(copy.trainable_weights) == len(copy.weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": 28}, r"`image_shape` must be \(H, W, C\).*image_shape=28"),
        ({"image_shape": (28, 28)}, r"`image_shape` must be .*image_shape=\(28, 28\)"),
        ({"image_shape": (28.0, 28, 1)}, "`image_shape` must be a whole number.*28.0"),
        ({"image_shape": (0, 28, 1)}, "`image_shape` must be 1 or more.*0"),
        ({"patch_size": 5}, "`patch_size` must divide the image: 8 / 5 leaves 3 pixels over"),
        ({"patch_size": (4, 5)}, "`patch_size` must divide the image: 12 / 5 leaves 2 pixels over"),
        ({"patch_size": 0}, "`patch_size` must be.*1 or more.*0"),
        ({"projection_dim": 0}, "`projection_dim` must be 1 or more"),
        ({"num_layers": 0}, "`num_layers` must be 1 or more"),
        ({"num_layers": True}, "`num_layers` must be a whole number.*True"),
        ({"num_heads": 2.0}, "`num_heads` must be a whole number.*2.0"),
        ({"num_heads": -1}, "`num_heads` must be 1 or more.*-1"),
        ({"key_dim": 0}, "`key_dim` must be 1 or more"),
        ({"mlp_dim": "10"}, "`mlp_dim` must be a whole number.*'10'"),
        ({"num_prefix_tokens": -1}, "`num_prefix_tokens` must be 0 or more.*-1"),
        ({"embedding_dropout": 1}, r"`embedding_dropout` must be a number in \[0, 1\)"),
        ({"dropout": 1.0}, r"`dropout` must be a number in \[0, 1\).*1.0"),
        ({"attention_dropout": -0.1}, r"`(attention_)?dropout` must be a number in \[0, 1\).*-0.1"),
        ({"data_format": "channels_middle"}, "`data_format` must be .*channels_middle"),
        ({"stem": "wavelets"}, "`stem` must be a Keras layer or None. Received: stem='wavelets'"),
        ({"position_bias": 1.0}, "`position_bias` must be a Keras layer or None. Received: position_bias=1.0"),
        (
            {"stem": ConvStem((4,))},
            r"the product of the stem's strides and pools, 2 \* 1 = 2. .*patch_size=\(4, 4\)",
        ),
        ({"stem": ShiftedPatches(2)}, r"`patch_size` of ShiftedPatches must be the model's, \(4, 4\).*\(2, 2\)"),
        ({"stem": keras.layers.Flatten()}, r"`stem` must turn images into \(B, 6, P\): .*gives \(None, 96\)"),
        (
            {"position_bias": RelativePositionBias(grid_size=(3, 2))},
            r"`grid_size` of RelativePositionBias must be the model's, \(2, 3\).*\(3, 2\)",
        ),
        ({"stochastic_depth": 1}, r"`stochastic_depth` must be a number in \[0, 1\).*1"),
        ({"frozen_layers": ["head"]}, "There is no layer 'head' to freeze.*transformer_block_1"),
    ],
)
def test_a_bad_argument_is_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        ViTBackbone(**{"image_shape": (8, 12, 1), "patch_size": 4, **SIZES, **arguments})


def test_a_misspelt_argument_is_not_swallowed():
    with pytest.raises(TypeError, match="num_layer"):
        ViTBackbone((8, 12, 1), 4, num_layer=3, **SIZES)


def test_one_stem_and_one_bias_serve_two_models(rng):
    stem, bias = ConvStem((3, 5), kernel_initializer=HeNormal(seed=4)), RelativePositionBias(locality=1.0)
    first, second = (ViTBackbone((8, 12, 1), 4, stem=stem, position_bias=bias, **SIZES) for _ in range(2))
    assert not stem.built
    assert not bias.built
    assert first.stem is not second.stem
    np.testing.assert_array_equal(*(to_numpy(model.stem.convolutions[0].kernel) for model in (first, second)))
    tables = [block.position_bias.table for model in (first, second) for block in model.transformer_blocks]
    assert len({id(table) for table in tables}) == 4


@keras.saving.register_keras_serializable(package="tests")
class MeanOfPatches(keras.layers.Layer):
    """A stem of a user's own: one number per patch and channel."""

    def call(self, images):
        means = ops.average_pool(images, 4, 4, data_format="channels_last")
        return ops.reshape(means, (-1, 6, images.shape[-1]))


def test_a_stem_of_ones_own(rng):
    backbone = ViTBackbone((8, 12, 3), 4, stem=MeanOfPatches(), **SIZES)
    images = rng.random((2, 8, 12, 3), "float32")
    means = images.reshape(2, 2, 4, 3, 4, 3).mean(axis=(2, 4)).reshape(2, 6, 3)
    assert_agree(to_numpy(backbone.stem(images)), means, 1e-6)
    copy = revived(backbone)
    copy_weights(backbone, copy)
    np.testing.assert_array_equal(to_numpy(copy(images)), to_numpy(backbone(images)))


class Unregistered(MeanOfPatches):
    """Known by `custom_objects` alone."""

    def __init__(self, patch_size=None, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


def test_custom_objects_name_a_stem_of_ones_own_and_an_int_is_a_patch_size():
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        backbone = ViTBackbone((8, 12, 3), 4, stem=Unregistered(patch_size=4), **SIZES)
    again = ViTBackbone.from_config(backbone.get_config(), custom_objects={"Unregistered": Unregistered})
    assert (type(again.stem), again.stem.patch_size) == (Unregistered, 4)
    with (
        keras.saving.custom_object_scope({"Unregistered": Unregistered}),
        pytest.raises(ValueError, match=r"must be the model's, \(4, 4\)\. Received: patch_size=3"),
    ):
        ViTBackbone((8, 12, 3), 4, stem=Unregistered(patch_size=3), **SIZES)


def test_a_functional_model_is_a_stem(rng):
    images = keras.Input((8, 12, 3))
    cut = keras.layers.Conv2D(5, 4, 4, data_format="channels_last")(images)
    stem = keras.Model(images, keras.layers.Reshape((6, 5))(cut))
    backbone = ViTBackbone((8, 12, 3), 4, stem=stem, **SIZES)
    assert backbone.stem is not stem
    copy = revived(backbone)
    copy_weights(backbone, copy)
    images = rng.random((2, 8, 12, 3), "float32")
    np.testing.assert_array_equal(to_numpy(copy(images)), to_numpy(backbone(images)))


def test_a_frozen_stem_stays_frozen():
    backbone = ViTBackbone((8, 12, 1), 4, stem=ConvStem((3, 5), trainable=False), **SIZES)
    assert backbone.frozen_layers == ["conv_stem"]
    assert revived(backbone).frozen_layers == ["conv_stem"]


def test_an_error_in_a_stem_is_told_though_another_is_being_handled():
    described = keras.saving.serialize_keras_object(ConvStem((3, 5)))
    described["config"]["dropout"] = 3
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="`dropout` must be"):
            ViTBackbone((8, 12, 1), 4, stem=described, **SIZES)


def test_a_flat_configuration_of_before_gives_the_same_model():
    flat = {**ViTBackbone((8, 12, 1), 4, **SIZES).get_config(), "stem": "conv", "stem_filters": [3, 5], "locality": 0.5}
    del flat["position_bias"]
    model = ViTBackbone.from_config(flat)
    assert (model.stem.filters, model.stem.activation) == ((3, 5), model.activation)
    assert [block.position_bias.locality for block in model.transformer_blocks] == [0.5, 0.5]
    assert model.get_config() == ViTBackbone.from_config(model.get_config()).get_config()


def test_an_image_of_another_size_is_refused(rng):
    backbone = ViTBackbone((8, 12, 1), 4, **SIZES)
    with pytest.raises(ValueError, match=r"8, 12, 1"):
        backbone(rng.random((2, 12, 12, 1), "float32"))
