"""`open_vit`: a keras_hub ViT or DeiT out of our layers, the same numbers."""

import keras
import numpy as np
import pytest

from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.transfer import open_vit
from tests.support import assert_agree, random_weights, relative_difference, revived, to_numpy

keras_hub = pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)

pytestmark = pytest.mark.hub

IMAGE_SHAPE = (12, 8, 3)
SIZES = {"patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
IMAGES = np.random.default_rng(0).normal(size=(2, *IMAGE_SHAPE)).astype("float32")


def vit(**arguments):
    """A small keras_hub ViT backbone, every weight random, none 0 or 1."""
    backbone = keras_hub.models.ViTBackbone(**{"image_shape": IMAGE_SHAPE, "mlp_dim": 12, **SIZES, **arguments})
    random_weights(backbone)
    return backbone


def deit(**arguments):
    """A small keras_hub DeiT backbone."""
    sizes = {"image_shape": IMAGE_SHAPE, "intermediate_dim": 12, **SIZES}
    backbone = keras_hub.models.DeiTBackbone(**{**sizes, **arguments})
    random_weights(backbone)
    return backbone


def classifier(backbone, **arguments):
    """A keras_hub classifier around the backbone."""
    cls = {vit: "ViTImageClassifier", deit: "DeiTImageClassifier"}[backbone]
    model = getattr(keras_hub.models, cls)(backbone=backbone(), num_classes=5, **arguments)
    random_weights(model)
    return model


def encoder_of(backbone):
    """keras_hub's embedding and encoder layers."""
    return backbone.layers[1], backbone.layers[2]


def their_intermediates(backbone, images):
    """The tokens after each layer, by our name of it, computed with keras_hub's layers."""
    embedding, encoder = encoder_of(backbone)
    tokens = embedding(images)
    after = {"patch_encoder": tokens}
    for i, block in enumerate(encoder.encoder_layers):
        tokens = block(tokens)
        tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        after[f"transformer_block_{i}"] = tokens
    after["encoder_norm"] = encoder.layer_norm(tokens)
    return {name: to_numpy(tokens) for name, tokens in after.items()}


def their_scores(backbone, images):
    """The attention scores of each block, by Keras's own attention layer."""
    after = their_intermediates(backbone, images)
    scores = []
    for name, block in zip(after, encoder_of(backbone)[1].encoder_layers, strict=False):
        x = block.layer_norm_1(after[name].astype("float32"))
        scores.append(to_numpy(block.mha(x, x, return_attention_scores=True)[1]))
    return scores


# The same numbers. ----------------------------------------------------------------------------------------------------

BACKBONES = {
    "ViT": (vit, {}),
    "DeiT": (deit, {}),
    "ViT without class token": (vit, {"use_class_token": False}),
    "ViT without biases": (vit, {"use_mha_bias": False, "use_mlp_bias": False, "use_patch_bias": False}),
    "DeiT without bias in the attention": (deit, {"use_mha_bias": False}),
    "ViT with another epsilon": (vit, {"layer_norm_epsilon": 0.1}),
    "DeiT with another epsilon": (deit, {"layer_norm_epsilon": 0.1}),
    "ViT with oblong patches": (vit, {"patch_size": (2, 4)}),
    "DeiT with heads of odd size": (deit, {"hidden_dim": 9, "num_heads": 3}),
    "ViT of one channel": (vit, {"image_shape": (12, 8, 1)}),
}
of_every_kind = pytest.mark.parametrize(("make", "arguments"), BACKBONES.values(), ids=BACKBONES)


@of_every_kind
def test_tokens_after_every_layer_and_every_score_are_the_same(make, arguments):
    theirs = make(**arguments)
    images = IMAGES[..., : theirs.image_shape[-1]]
    ours = open_vit(theirs)
    assert isinstance(ours, ViTBackbone)
    assert_agree(to_numpy(ours(images)), to_numpy(theirs(images)), 1e-5)
    after, expected = ours.intermediates(images), their_intermediates(theirs, images)
    assert list(after) == list(expected)
    for name, tokens in after.items():
        assert_agree(to_numpy(tokens), expected[name], 1e-5)
    scores = ours.attention_scores(images)
    for actual, wanted in zip(scores, their_scores(theirs, images), strict=True):
        assert_agree(to_numpy(actual), wanted, 1e-5)
        np.testing.assert_allclose(to_numpy(actual).sum(axis=-1), 1, atol=1e-5)


def test_no_more_parameters_than_the_source():
    for theirs in (vit(), deit()):
        assert open_vit(theirs).count_params() == theirs.count_params()


HEADS = {
    "ViT": (vit, {}),
    "DeiT": (deit, {}),
    "ViT, mean of all tokens": (vit, {"pooling": "gap"}),
    "DeiT, mean of all tokens": (deit, {"pooling": "gap"}),
    "ViT with pre_logits": (vit, {"intermediate_dim": 7}),
    "ViT, softmax": (vit, {"activation": "softmax"}),
}


@pytest.mark.parametrize(("backbone", "arguments"), HEADS.values(), ids=HEADS)
def test_logits_are_the_same(backbone, arguments):
    theirs = classifier(backbone, **arguments)
    ours = open_vit(theirs)
    assert isinstance(ours, ViTClassifier)
    assert_agree(to_numpy(ours(IMAGES)), to_numpy(theirs(IMAGES)), 1e-5)
    assert ours.count_params() == theirs.count_params()
    assert len(ours.attention_scores(IMAGES)) == 2
    assert_agree(to_numpy(ours.intermediates(IMAGES)["encoder_norm"]), to_numpy(theirs.backbone(IMAGES)), 1e-5)


def test_channels_first():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolution on a CPU")
    theirs = vit(image_shape=(3, 12, 8), data_format="channels_first")
    images = np.moveaxis(IMAGES, -1, 1)
    ours = open_vit(theirs)
    assert_agree(to_numpy(ours(images)), to_numpy(theirs(images)), 1e-5)
    assert open_vit(theirs, image_size=(8, 16)).input_shape == (None, 3, 8, 16)


def test_mixed_precision_is_kept():
    theirs = vit(dtype="mixed_bfloat16")
    ours = open_vit(theirs)
    assert ours.dtype_policy.name == "mixed_bfloat16"
    assert {w.dtype for w in ours.weights} == {"float32"}
    assert_agree(to_numpy(ours(IMAGES)), to_numpy(theirs(IMAGES)), 2e-2)


def test_the_update_of_lora_is_in_the_opened_weights():
    theirs = vit()
    before = to_numpy(theirs(IMAGES))
    layer = encoder_of(theirs)[1].encoder_layers[0].mha.query_dense
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape, "float32"))
    expected = to_numpy(theirs(IMAGES))
    assert relative_difference(expected, before) > 1e-3
    assert_agree(to_numpy(open_vit(theirs)(IMAGES)), expected, 1e-5)


def test_an_opened_model_is_independent_of_its_source():
    theirs = vit()
    expected = to_numpy(theirs(IMAGES))
    ours = open_vit(theirs)
    random_weights(theirs, seed=1)
    assert_agree(to_numpy(ours(IMAGES)), expected, 1e-5)
    assert relative_difference(to_numpy(theirs(IMAGES)), expected) > 1e-2


@pytest.mark.parametrize("make", [vit, deit])
def test_an_opened_model_outlives_its_source(make):
    # Keras on JAX gives the memory of a model's weights to the next step.
    theirs = classifier(make)
    opened = open_vit(theirs)
    before = to_numpy(opened(IMAGES))
    for model in (theirs, opened, theirs):
        model.predict_on_batch(IMAGES)
    np.testing.assert_array_equal(to_numpy(opened(IMAGES)), before)
    assert_agree(before, to_numpy(theirs(IMAGES)), 1e-5)


# Dropout. -------------------------------------------------------------------------------------------------------------


def test_a_vit_drops_out_in_five_places():
    ours = open_vit(vit(dropout_rate=0.2, attention_dropout=0.3))
    block = ours.transformer_blocks[1]
    assert ours.get_layer("embedding_dropout").rate == 0.2
    rates = (block.attention_output_dropout.rate, block.mlp_hidden_dropout.rate, block.mlp_output_dropout.rate)
    assert rates == (0.2, 0.2, 0.2)
    assert block.attention.score_dropout.rate == 0.3


def test_a_deit_drops_out_in_three():
    ours = open_vit(deit(dropout_rate=0.2, attention_dropout=0.3))
    block = ours.transformer_blocks[1]
    assert ours.get_layer("embedding_dropout").rate == 0.2
    rates = (block.attention_output_dropout.rate, block.mlp_hidden_dropout.rate, block.mlp_output_dropout.rate)
    assert rates == (0.0, 0.0, 0.2)
    assert block.attention.score_dropout.rate == 0.3


@pytest.mark.parametrize(
    ("make", "rates"),
    [(vit, {"dropout_rate": 0.3}), (deit, {"dropout_rate": 0.3}), (vit, {"attention_dropout": 0.5})],
)
def test_dropout_scatters_the_outputs_of_training_as_the_source_does(make, rates):
    theirs = make(num_layers=1, **rates)
    ours = open_vit(theirs)
    batch = np.repeat(IMAGES[:1], 3000, axis=0)
    spread, expected = (to_numpy(model(batch, training=True)).std(axis=0) for model in (ours, theirs))
    assert np.abs(spread / expected - 1).mean() < 0.03
    assert relative_difference(to_numpy(ours(IMAGES)), to_numpy(theirs(IMAGES))) < 1e-5


def test_the_head_of_a_vit_drops_out_and_that_of_a_deit_does_not():
    assert open_vit(classifier(vit, dropout=0.4)).get_layer("head_dropout").rate == 0.4
    theirs = classifier(deit, dropout=0.4)
    training = [to_numpy(theirs(IMAGES, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*training)  # it is made and left out
    assert open_vit(theirs).get_layer("head_dropout").rate == 0


# Another size. --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "prefix"), [(vit, 1), (deit, 2)])
def test_positions_are_those_of_a_resized_patch_encoder(make, prefix):
    theirs = make()
    original = open_vit(theirs).get_layer("patch_encoder")
    ours = open_vit(theirs, image_size=(8, 16))
    assert ours.input_shape == (None, 8, 16, 3)
    resized = original.resized((2, 4))
    encoder = ours.get_layer("patch_encoder")
    np.testing.assert_allclose(to_numpy(encoder.position_embedding), to_numpy(resized.position_embedding), atol=1e-6)
    np.testing.assert_array_equal(
        to_numpy(encoder.position_embedding)[:prefix], to_numpy(original.position_embedding)[:prefix]
    )
    images = np.random.default_rng(1).normal(size=(2, 8, 16, 3)).astype("float32")
    assert ours(images).shape == (2, prefix + 8, 8)
    assert [tuple(s.shape) for s in ours.attention_scores(images)] == [(2, 2, prefix + 8, prefix + 8)] * 2


def test_the_same_size_changes_nothing():
    theirs = deit()
    np.testing.assert_array_equal(
        to_numpy(open_vit(theirs, image_size=(12, 8))(IMAGES)), to_numpy(open_vit(theirs)(IMAGES))
    )


def test_an_int_is_a_square():
    assert open_vit(vit(), image_size=16).input_shape == (None, 16, 16, 3)


# Saving. --------------------------------------------------------------------------------------------------------------


def test_opened_models_survive_their_configuration_and_a_file(tmp_path):
    for theirs in (
        classifier(deit, head="mean_with_prefix"),
        classifier(vit, intermediate_dim=7, activation="softmax", dropout=0.2),
        vit(dropout_rate=0.1, attention_dropout=0.2, layer_norm_epsilon=1e-3, use_mha_bias=False),
    ):
        ours = open_vit(theirs)
        assert revived(ours).get_config() == ours.get_config()
        ours.save(tmp_path / "opened.keras")
        again = keras.saving.load_model(tmp_path / "opened.keras")
        assert type(again) is type(ours)
        np.testing.assert_array_equal(to_numpy(again(IMAGES)), to_numpy(ours(IMAGES)))
        assert_agree(to_numpy(again(IMAGES)), to_numpy(theirs(IMAGES)), 1e-5)


# What cannot be opened. -----------------------------------------------------------------------------------------------


def vgg():
    return keras_hub.models.VGGBackbone([1], [4], image_shape=(16, 16, 3))


def around_another():
    return keras_hub.models.ViTImageClassifier(backbone=own_model(), num_classes=2)


def own_model():
    images = keras.Input(IMAGE_SHAPE)
    return keras.Model(images, keras.layers.Reshape((24, 12))(images), name="own")


def quantized():
    model = vit()
    encoder_of(model)[1].encoder_layers[0].mlp.dense_1.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (vgg, r"Only a ViTBackbone or DeiTBackbone.*Received: VGGBackbone$"),
        (around_another, r"Only a ViTBackbone.*Received: ViTImageClassifier around Functional$"),
        (own_model, r"Only a ViTBackbone.*Received: Functional$"),
        (quantized, r"A quantized model cannot be opened.*Received: .*dense_1 is quantized to int8$"),
        (lambda: classifier(vit, pooling=None), r"classifier must be one of \('token', 'gap'\)\. Received: None$"),
    ],
    ids=["CNN", "classifier around another backbone", "model without a family", "quantized", "pooling"],
)
def test_other_models_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        open_vit(make())
    assert "\n" not in str(error.value)


def test_an_image_size_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"`patch_size` must divide the image: 10 / 4 leaves 2.*Received"):
        open_vit(vit(), image_size=10)
    with pytest.raises(ValueError, match=r"`image_size` must be.*Received: image_size=0"):
        open_vit(vit(), image_size=0)


# The real size. -------------------------------------------------------------------------------------------------------


def test_vit_b16_has_the_parameters_of_its_preset():
    preset = keras_hub.models.ViTBackbone.presets["vit_base_patch16_224_imagenet"]
    sizes = {"num_layers": 12, "num_heads": 12, "key_dim": 64, "mlp_dim": 3072, "num_prefix_tokens": 1}
    backbone = ViTBackbone((224, 224, 3), 16, 768, **sizes)
    assert backbone.count_params() == 85_798_656 == preset["metadata"]["params"]
