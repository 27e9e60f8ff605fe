import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.training.checkpoint import load_newest, save_checkpoint
from keras_vit_edu.transfer import layer_wise, unfreeze_last
from keras_vit_edu.transfer.layer_decay import clipped
from tests.support import to_numpy
from tests.transfer.small import classifier, coloured

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES, LABELS = coloured(8)
IMAGES = IMAGES[:, :16, :16].astype("float32") / 255


def adamw(factor, **options):
    return keras.optimizers.AdamW(1e-3 * factor, weight_decay=0.0, name="adamw", **options)


def compiled(model, **options):
    model.compile(layer_wise(model, adamw, **options), LOSS)
    return model


def largest_steps(model):
    """The largest change of a kernel in each layer, in one training step."""
    before = [to_numpy(w) for w in model.weights]
    model.train_on_batch(IMAGES, LABELS)
    steps = {}
    for weight, old in zip(model.weights, before, strict=True):
        if weight.path.endswith("kernel"):
            layer = weight.path.split("/")[1]
            steps[layer] = max(steps.get(layer, 0.0), np.abs(to_numpy(weight) - old).max())
    return steps


def test_steps_under_adamw_follow_the_decay():
    # The first step of Adam is the learning rate times the sign of the gradient.
    steps = largest_steps(compiled(classifier(pre_logits_dim=5), decay=0.5))
    expected = {
        "logits": 1,
        "head_dense_0": 1,
        "transformer_block_2": 1 / 2,
        "transformer_block_1": 1 / 4,
        "transformer_block_0": 1 / 8,
        "patch_encoder": 1 / 16,
    }
    assert steps == pytest.approx({layer: share * 1e-3 for layer, share in expected.items()}, rel=1e-2)


@pytest.mark.any_backend
def test_a_schedule_acts_in_every_layer():
    model = classifier()

    def scheduled(factor):
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1e-3 * factor, 1e-2 * factor, 0.0])
        return keras.optimizers.AdamW(rate, weight_decay=0.0)

    model.compile(layer_wise(model, scheduled, decay=0.5), LOSS)
    sizes = [largest_steps(model) for _ in range(3)]
    for steps in sizes:
        assert steps["transformer_block_2"] == pytest.approx(steps["transformer_block_1"] * 2, rel=0.1)
    assert sizes[1]["logits"] > 5 * sizes[0]["logits"]
    assert max(sizes[2].values()) == 0


@pytest.mark.any_backend
def test_without_decay_it_is_adamw():
    one, other = classifier(dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0), None
    other = keras.models.clone_model(one)
    other.set_weights(one.get_weights())
    one.compile(layer_wise(one, lambda factor: keras.optimizers.AdamW(1e-3), decay=1.0, global_clipnorm=0.1), LOSS)
    other.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=0.1), LOSS)
    for _ in range(3):
        one.train_on_batch(IMAGES, LABELS)
        other.train_on_batch(IMAGES, LABELS)
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


def test_gradients_are_clipped_all_together():
    model = classifier(dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0)
    before = [to_numpy(w) for w in model.trainable_weights]
    sgd = layer_wise(model, lambda factor: keras.optimizers.SGD(1.0), decay=0.5, global_clipnorm=0.01)
    model.compile(sgd, LOSS)
    model.train_on_batch(IMAGES, LABELS)
    moved = [to_numpy(w) - old for w, old in zip(model.trainable_weights, before, strict=True)]
    assert np.sqrt(sum(np.sum(step**2) for step in moved)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.any_backend
def test_clipping_against_numpy():
    gradients = [np.array([3.0, 0.0], "float32"), None, np.array([[4.0]], "float32")]  # of length 5
    found = clipped([None if g is None else keras.ops.convert_to_tensor(g) for g in gradients], 1.0)
    assert found[1] is None
    np.testing.assert_allclose(to_numpy(found[0]), [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(to_numpy(found[2]), [[0.8]], rtol=1e-6)
    unclipped = clipped([keras.ops.convert_to_tensor(gradients[0])], 10.0)
    np.testing.assert_array_equal(to_numpy(unclipped[0]), [3.0, 0.0])


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path):
    model = compiled(classifier(), decay=0.5, global_clipnorm=1.0)
    model.train_on_batch(IMAGES, LABELS)
    save_checkpoint(tmp_path, model, 1, {})
    again = compiled(classifier(), decay=0.5, global_clipnorm=1.0)
    load_newest(tmp_path, again, pytest.fail)
    for one in (model, again):
        one.train_on_batch(IMAGES, LABELS)
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.any_backend
def test_moving_averages_of_the_optimizers_within():
    model = classifier()
    model.compile(layer_wise(model, lambda f: adamw(f, use_ema=True, ema_momentum=0.5), decay=0.5), LOSS)
    model.train_on_batch(IMAGES, LABELS)
    before = to_numpy(model.get_layer("logits").kernel)
    model.train_on_batch(IMAGES, LABELS)
    after = to_numpy(model.get_layer("logits").kernel)
    (head,) = [o for o in model.optimizer.optimizers if float(o.learning_rate) == pytest.approx(1e-3)]
    averages = {tuple(a.shape): to_numpy(a) for a in head._model_variables_moving_average}
    np.testing.assert_allclose(averages[before.shape], (before + after) / 2, atol=1e-7)


@pytest.mark.any_backend
def test_frozen_layers_stay():
    model = classifier()
    unfreeze_last(model, 1, Console(quiet=True))
    steps = largest_steps(compiled(model, decay=0.5))
    assert {layer for layer, step in steps.items() if step} == {"logits", "transformer_block_2"}


@pytest.mark.any_backend
def test_the_compiled_model_is_loaded_again(tmp_path):
    model = compiled(classifier(), decay=0.5, global_clipnorm=0.7)
    model.train_on_batch(IMAGES, LABELS)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.global_clipnorm == 0.7
    for one in (model, again):
        one.train_on_batch(IMAGES, LABELS)
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_layer_whose_weights_are_all_exempt_from_decay_trains():
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.BatchNormalization(name="norm"), keras.layers.Flatten(),
         keras.layers.Dense(2, name="logits")]
    )  # fmt: skip

    def exempt(factor):
        optimizer = keras.optimizers.AdamW(1e-3 * factor, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.weights if len(v.shape) < 2])
        return optimizer

    gamma = model.get_layer("norm").gamma
    before = to_numpy(gamma)
    model.compile(layer_wise(model, exempt, decay=0.5), LOSS)
    model.train_on_batch(IMAGES, LABELS % 2)
    # The first step of Adam is the learning rate times the sign of the gradient, and nothing else moves it.
    np.testing.assert_allclose(np.abs(to_numpy(gamma) - before), 0.5e-3, rtol=1e-2)


def test_a_layer_named_as_the_head_is_not_the_head():
    body = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, name="logits")], name="body")
    model = keras.Sequential([keras.Input((16, 16, 3)), body, keras.layers.Dense(5, name="logits")])
    steps = largest_steps(compiled(model, decay=0.5))
    assert steps == pytest.approx({"body": 0.5e-3, "logits": 1e-3}, rel=1e-2)


@pytest.mark.any_backend
@pytest.mark.parametrize("decay", [0, 1.5, -1, True, "0.75"])
def test_a_wrong_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"`decay` must be a number above 0 and at most 1. Received: decay="):
        layer_wise(classifier(), adamw, decay=decay)


def test_a_model_that_is_frozen_altogether_is_refused():
    model = classifier()
    model.trainable = False
    with pytest.raises(ValueError, match="At least one weight must be trainable"):
        layer_wise(model, adamw)
