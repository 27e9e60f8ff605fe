import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.transfer import freeze_backbone, unfreeze_last
from tests.transfer.small import changed, classifier, coloured, weights

QUIET = Console(quiet=True)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES, LABELS = coloured(8)
IMAGES = IMAGES[:, :16, :16].astype("float32") / 255


def train(model):
    """Two steps of AdamW with weight decay; the paths of the weights that moved."""
    before = weights(model)
    model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1, global_clipnorm=1.0), LOSS)
    model.fit(IMAGES, LABELS, batch_size=4, verbose=0)
    return changed(model, before)


def parts(paths):
    """Which layers of the model the weights belong to."""
    return {path.split("/")[1] for path in paths}


BLOCKS = [f"transformer_block_{i}" for i in range(3)]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        pytest.param(0, {"logits"}, marks=pytest.mark.any_backend),
        (1, {"logits", "head_dense_0", "encoder_norm", BLOCKS[2]}),
        pytest.param(2, {"logits", "head_dense_0", "encoder_norm", *BLOCKS[1:]}, marks=pytest.mark.any_backend),
        pytest.param(3, {"logits", "head_dense_0", "encoder_norm", *BLOCKS}, marks=pytest.mark.any_backend),
        pytest.param(
            None, {"logits", "head_dense_0", "encoder_norm", *BLOCKS, "patch_encoder"}, marks=pytest.mark.any_backend
        ),
    ],
)
def test_frozen_weights_keep_their_bits_and_others_change(k, expected):
    model = classifier(pre_logits_dim=5)
    unfreeze_last(model, k, QUIET)
    assert parts(w.path for w in model.trainable_weights) == expected
    assert train(model) == {w.path for w in model.trainable_weights}


@pytest.mark.any_backend
def test_every_change_can_be_undone():
    model = classifier()
    expected = {k: {w.path for w in unfrozen(classifier(), k).trainable_weights} for k in (0, 1, 2, None)}
    expected = {k: {path.split("/", 1)[1] for path in paths} for k, paths in expected.items()}
    for k in (0, 1, None, 2, 0, 2, None, 1):
        unfreeze_last(model, k, QUIET)
        assert {w.path.split("/", 1)[1] for w in model.trainable_weights} == expected[k], k


def unfrozen(model, k):
    unfreeze_last(model, k, QUIET)
    return model


def test_freeze_trains_the_head_alone():
    model = classifier()
    assert freeze_backbone(model, QUIET) == (12 * 3 + 3, model.count_params())
    assert parts(train(model)) == {"logits"}


def test_the_counts_are_printed(capsys):
    model = classifier()
    freeze_backbone(model)
    assert f"39 of {model.count_params():,} weights train" in capsys.readouterr().out


def test_a_compiled_model_gets_a_new_optimizer_and_training_step():
    model = classifier()
    freeze_backbone(model, QUIET)
    model.compile(keras.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"])
    model.fit(IMAGES, LABELS, verbose=0)
    old, before = model.optimizer, weights(model)
    unfreeze_last(model, 1, QUIET)
    assert model.optimizer is not old
    assert type(model.optimizer) is type(old)
    assert float(model.optimizer.learning_rate) == pytest.approx(3e-3)
    assert int(model.optimizer.iterations) == 0
    model.fit(IMAGES, LABELS, verbose=0)
    assert parts(changed(model, before)) == {"logits", "encoder_norm", BLOCKS[2]}


@pytest.mark.any_backend
def test_a_model_that_is_not_opened_trains_its_head_or_all():
    images = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(images))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(3)(x))
    freeze_backbone(model, QUIET)
    moved = train(model)
    assert len(moved) == 2  # kernel and bias of the Dense layer; not the moving averages
    assert unfreeze_last(model, None, QUIET).trainable > 4 * 28
    assert len(train(model)) == len(model.weights)
    with pytest.raises(ValueError, match=r"`k` must be None.*has no blocks to count. Received: k=1"):
        unfreeze_last(model, 1, QUIET)


@pytest.mark.parametrize("k", [-1, 4, 1.0, True, "all"])
def test_a_wrong_number_of_blocks_is_refused(k):
    with pytest.raises(ValueError, match=r"`k` must be None \(all weights\) or 0 to 3.*Received: k="):
        unfreeze_last(classifier(), k)


def test_a_model_must_end_in_logits():
    backbone = classifier().backbone
    with pytest.raises(ValueError, match=r"must end in a Dense layer.*Received: .*LayerNormalization 'encoder_norm'"):
        freeze_backbone(backbone)
    images = keras.Input((4,))
    with pytest.raises(ValueError, match=r"must give logits.*Received: .*'softmax'"):
        freeze_backbone(keras.Model(images, keras.layers.Dense(3, activation="softmax")(images)))


@pytest.mark.any_backend
def test_outputs_do_not_depend_on_trainable_flags():
    model = classifier()
    expected = model.predict(IMAGES, verbose=0)
    for k in (0, 2, None):
        unfreeze_last(model, k, QUIET)
        np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), expected)
