import keras
import numpy as np
import pytest

from keras_vit_edu import random
from keras_vit_edu.transfer import TransferClassifier, add_lora, merge_lora
from tests.support import BACKEND, on_one_backend, to_numpy
from tests.transfer.small import PREPROCESSING, changed, classifier, coloured, weights

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES, LABELS = coloured(8)
IMAGES = IMAGES[:, :16, :16].astype("float32") / 255


def trained(model, steps=3):
    model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1), LOSS)
    for _ in range(steps):
        model.train_on_batch(IMAGES, LABELS)
    return model


@pytest.mark.any_backend
def test_it_begins_where_the_model_is_and_leaves_it_alone():
    model = classifier()
    expected, before = model.predict(IMAGES, verbose=0), weights(model)
    tuned = add_lora(model, rank=2)
    np.testing.assert_array_equal(tuned.predict(IMAGES, verbose=0), expected)
    trained(tuned)
    assert np.abs(tuned.predict(IMAGES, verbose=0) - expected).max() > 1e-3
    assert changed(model, before) == set()
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), expected)


@pytest.mark.parametrize(
    "names", [("q_dense", "v_dense"), *on_one_backend((("q_dense", "k_dense", "v_dense", "out_dense"),))]
)
def test_only_the_additions_and_the_head_train(names):
    tuned = add_lora(classifier(), rank=2, target_layer_names=names)
    before = weights(tuned)
    moved = changed(trained(tuned), before)
    assert moved == {w.path for w in tuned.trainable_weights}
    assert {path.split("/")[-1] for path in moved if "logits" not in path} == {"lora_kernel_a", "lora_kernel_b"}
    assert {path.split("/")[-2] for path in moved if "lora" in path} == set(names)
    assert len(moved) == 3 * len(names) * 2 + 2


def test_merged_weights_are_the_sum():
    model = classifier()
    tuned = trained(add_lora(model, rank=2, alpha=6, target_layer_names=("q_dense",)))
    kernel = to_numpy(model.backbone.transformer_blocks[1].attention.q_dense.kernel)
    of_tuned = tuned.backbone.transformer_blocks[1].attention.q_dense
    a, b = to_numpy(of_tuned.lora_kernel_a), to_numpy(of_tuned.lora_kernel_b)
    assert np.abs(b).max() > 0
    merged = merge_lora(tuned)
    found = to_numpy(merged.backbone.transformer_blocks[1].attention.q_dense.kernel)
    np.testing.assert_allclose(found, kernel + 6 / 2 * a @ b, atol=1e-6)
    np.testing.assert_allclose(merged.predict(IMAGES, verbose=0), tuned.predict(IMAGES, verbose=0), atol=1e-5)
    assert len(merged.weights) == len(merged.trainable_weights) == len(model.weights)


@pytest.mark.any_backend
def test_merged_into_the_model_that_it_was_made_of():
    model = classifier()
    tuned = trained(add_lora(model, rank=2))
    assert merge_lora(tuned, into=model) is model
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), tuned.predict(IMAGES, verbose=0), atol=1e-5)
    np.testing.assert_array_equal(  # dropout goes on where it was
        to_numpy(model(IMAGES, training=True)), to_numpy(merge_lora(tuned)(IMAGES, training=True))
    )


def test_the_draws_are_those_of_numpy():
    tuned = add_lora(classifier(), rank=2, seed=5)
    found = to_numpy(tuned.backbone.transformer_blocks[1].attention.v_dense.lora_kernel_a)
    limit = np.sqrt(6 / 12)  # He's, of 12 inputs
    seed = random.derive_seed(5, "transformer_block_1/v_dense")
    expected = -limit + 2 * limit * random.uniform(seed, (0,), (12, 2))
    np.testing.assert_array_equal(found, expected.astype("float32"))
    assert np.abs(found - to_numpy(tuned.backbone.transformer_blocks[1].attention.q_dense.lora_kernel_a)).max() > 0.1


@pytest.mark.any_backend
def test_an_artifact_has_plain_weights(tmp_path):
    model = classifier()
    classifier_ = TransferClassifier(merge_lora(trained(add_lora(model, rank=2))), PREPROCESSING, ["a", "b", "c"])
    classifier_.save(tmp_path / "artifact")
    again = TransferClassifier.load(tmp_path / "artifact")
    assert not any("lora" in weight.path for weight in again.model.weights)
    np.testing.assert_allclose(
        again.model.predict(IMAGES, verbose=0), classifier_.model.predict(IMAGES, verbose=0), atol=1e-6
    )


@pytest.mark.any_backend
def test_mixed_precision():
    if BACKEND == "tensorflow":
        pytest.skip("bfloat16 on TensorFlow's CPU takes a minute")
    model = classifier(dtype="mixed_bfloat16")
    tuned = trained(add_lora(model, rank=2), steps=1)
    expected = to_numpy(tuned(IMAGES))
    assert np.abs(to_numpy(merge_lora(tuned)(IMAGES)) - expected).max() <= 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "`rank` must be 1 or more"),
        ({"alpha": 0}, r"`alpha` must be a number above 0.*Received: alpha=0"),
        pytest.param({"alpha": 10**400}, r"`alpha` must be a number above 0.*Received: alpha=10", id="beyond floats"),
        (
            {"target_layer_names": ("query",)},
            r"`target_layer_names` must be some of q_dense.*Received: target_layer_names=\('query',\)",
        ),
        ({"target_layer_names": ()}, "`target_layer_names` must be some of q_dense"),
        ({"target_layer_names": ("q_dense", "q_dense")}, "each once"),
        ({"target_layer_names": "q_dense"}, "`target_layer_names` must be some of q_dense"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        add_lora(classifier(), **arguments)


def test_lora_is_added_once_and_merged_if_there():
    tuned = add_lora(classifier(), rank=2)
    with pytest.raises(ValueError, match="The model must not have LoRA"):
        add_lora(tuned)
    with pytest.raises(ValueError, match="The model must have LoRA"):
        merge_lora(classifier())
    with pytest.raises(ValueError, match="must have the same architecture"):
        merge_lora(tuned, into=classifier(num_classes=4))


def test_a_model_without_our_attention_is_refused():
    images = keras.Input((4,))
    with pytest.raises(ValueError, match=r"attention layers of this library.*Received: Functional"):
        add_lora(keras.Model(images, keras.layers.Dense(3)(images)))
