import json
import math

import keras
import numpy as np
import pytest

from keras_vit_edu.datasets import AUGMENTATIONS, Augmentation
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.training import RECIPES, Recipe, load_recipe, recipe_for
from tests.support import vit_classifier

pytestmark = [pytest.mark.quick, pytest.mark.lowest]


def test_program_p_is_the_courses():
    recipe = load_recipe("program-p")
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adamw", 1e-3, 1e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.validation_split) == (60, 256, 0.1)
    assert (recipe.schedule, recipe.warmup_epochs, recipe.label_smoothing) == ("constant", 0, 0)
    assert (recipe.global_clipnorm, recipe.ema, recipe.no_weight_decay) == (None, None, ())


def test_the_sample_is_trained_for_fewer_epochs():
    sample, other = recipe_for("mnist-sample"), recipe_for("flowers")
    assert (sample.name, other.name) == ("program-p-sample", "program-p")
    assert sample == other.replace(name="program-p-sample", epochs=20)


EVERYTHING = {
    "name": "mine",
    "optimizer": "lion",
    "learning_rate": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 1.5,
    "final_learning_rate": 1e-5,
    "weight_decay": 0.05,
    "no_weight_decay": ["bias", "norm"],
    "label_smoothing": 0.1,
    "global_clipnorm": 1.0,
    "ema": 0.999,
    "epochs": 7,
    "batch_size": 32,
    "validation_split": 0.2,
    "augmentation": Augmentation(rotation=3.0, mixup=0.5).to_json(),
    "augmentation_final_epochs": 2.5,
    "augmentation_final_strength": 0.25,
    "seed": 5,
}


def test_json_both_ways():
    assert Recipe.from_json(json.loads(json.dumps(EVERYTHING))).to_json() == EVERYTHING


def test_no_augmentation_is_none_in_json_and_all_spellings_are_equal():
    assert Recipe().to_json()["augmentation"] == "none"
    assert Recipe(augmentation="none") == Recipe(augmentation=None) == Recipe.from_json({"augmentation": "none"})
    named = Recipe(augmentation="digits")
    assert named.augmentation == AUGMENTATIONS["digits"]
    assert named.replace(augmentation="none") == Recipe()
    assert Recipe.from_json(json.loads(json.dumps(named.to_json()))) == named


def test_the_augmentation_weakens_at_the_end():
    recipe = Recipe(epochs=6, augmentation="digits", augmentation_final_epochs=4, augmentation_final_strength=0.2)
    strengths = [recipe.augmentation_strength(epoch) for epoch in range(6)]
    np.testing.assert_allclose(strengths, [1, 1, 0.8, 0.6, 0.4, 0.2])
    assert {Recipe(augmentation="digits").augmentation_strength(epoch) for epoch in range(60)} == {1.0}


def test_the_augmentation_of_a_batch_has_the_recipes_seed_and_the_epochs_strength(rng):
    recipe = Recipe(seed=4, epochs=2, augmentation={"rotation": 40}, augmentation_final_epochs=1)
    images, labels = rng.integers(0, 256, (3, 8, 8, 1), dtype="uint8"), np.arange(3)
    for epoch, strength in ((0, 1.0), (1, 0.0)):
        expected = Augmentation(rotation=40)(images, labels, 4, epoch, 7, strength)[0]
        np.testing.assert_array_equal(recipe.augment(images, labels, epoch, 7)[0], expected)


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_has_that_name_and_fits_its_preset(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    presets = {"program-p": "vit_mnist_program_p", "program-p-sample": "vit_mnist_program_p",
               "pure": "vit_mnist_pure", "hybrid": "vit_mnist_hybrid",
               "fashion-hybrid": "vit_fashion_hybrid", "cnn": "cnn_mnist", "cnn-augmented": "cnn_mnist"}  # fmt: skip
    model = Preset.from_preset(presets[name], load_weights=False)
    exempt = {variable.path for variable in recipe.exempt_from_decay(model)}
    if recipe.no_weight_decay:  # what is left to decay is a kernel, all of them
        decaying = {v.path for v in model.trainable_variables} - exempt
        assert decaying == {v.path for v in model.trainable_variables if v.path.endswith("/kernel")}


def test_a_file_with_a_few_fields_changes_those(tmp_path):
    (tmp_path / "short.json").write_text('{"epochs": 2, "ema": 0.99}')
    assert load_recipe(tmp_path / "short.json") == Recipe(name="short", epochs=2, ema=0.99)


def test_a_recipe_of_an_older_version_is_understood(tmp_path):
    (tmp_path / "old.json").write_text('{"clip_norm": 2.0, "epochs": 2}')
    recipe = load_recipe(tmp_path / "old.json")
    assert recipe == Recipe(name="old", global_clipnorm=2.0, epochs=2)
    assert "clip_norm" not in recipe.to_json()


def test_replace_changes_only_given_values():
    assert Recipe().replace(epochs=3, seed=None) == Recipe(epochs=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("optimizer", "adan"),
        ("learning_rate", 0),
        ("learning_rate", math.nan),
        pytest.param("learning_rate", 10**400, id="learning_rate-beyond floats"),
        ("learning_rate", "0.1"),
        ("schedule", "step"),
        ("warmup_epochs", -1),
        ("final_learning_rate", -1e-9),
        ("weight_decay", -1),
        ("no_weight_decay", "bias"),
        ("no_weight_decay", [1]),
        ("label_smoothing", 1.0),
        ("global_clipnorm", 0),
        ("ema", 1.0),
        ("ema", True),
        ("epochs", 0),
        ("epochs", 2.0),
        ("batch_size", 0),
        ("validation_split", 1),
        ("augmentation", "lots"),
        ("augmentation", {"rotation": 200}),
        ("augmentation", {"rotate": 20}),
        ("augmentation", 3),
        ("augmentation_final_epochs", -1),
        ("augmentation_final_strength", 2),
        ("seed", 2**31),
        ("seed", -1),
    ],
)
def test_a_value_out_of_range_names_its_field(field, value):
    with pytest.raises(ValueError, match=rf"The recipe's `{field}` must be .*Received: {field}="):
        Recipe.from_json({field: value})


def test_values_that_contradict_each_other():
    with pytest.raises(ValueError, match="`warmup_epochs` must be fewer than `epochs`"):
        Recipe(warmup_epochs=3, epochs=3)
    with pytest.raises(ValueError, match="`augmentation_final_epochs` must not be more than `epochs`"):
        Recipe(augmentation_final_epochs=4, epochs=3)
    with pytest.raises(ValueError, match="`final_learning_rate` must not be above"):
        Recipe(learning_rate=1e-3, final_learning_rate=1e-2)
    with pytest.raises(ValueError, match="`final_learning_rate` requires `schedule='cosine'`"):
        Recipe(final_learning_rate=1e-4)


def test_an_unknown_field_gets_a_hint():
    with pytest.raises(ValueError, match=r"no field 'learning_rat'. Did you mean learning_rate"):
        Recipe.from_json({"learning_rat": 1})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "cannot be read as JSON"),
        ("{'a': 1}", "cannot be read as JSON"),
        ("[1]", "is a JSON object"),
        ('{"x": 1}', "'x'"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, complaint):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=complaint) as error:
        load_recipe(tmp_path / "bad.json")
    assert "bad.json" in str(error.value)


def test_neither_name_nor_file():
    with pytest.raises(ValueError, match=r"no recipe 'program_p', and no such file. Did you mean program-p"):
        load_recipe("program_p")


def rates(recipe, steps_per_epoch, steps):
    schedule = recipe.learning_rate_schedule(steps_per_epoch)
    if isinstance(schedule, float):
        return [schedule] * len(steps)
    return [float(schedule(step)) for step in steps]


def test_the_rates_of_each_schedule():
    steps = [0, 5, 10, 15, 20, 25, 30]  # an epoch is 10 steps; one of warm-up, two of decay
    common = {"learning_rate": 1.0, "epochs": 3, "warmup_epochs": 1, "final_learning_rate": 0.2}
    # By hand. Half-way down a cosine is the mean of its ends; a quarter of the way is 0.2 + 0.8 (1 + cos 45 deg) / 2.
    quarter = 0.8 * (1 + math.sqrt(0.5)) / 2
    cosine = [0, 0.5, 1, 0.2 + quarter, 0.6, 1 - quarter, 0.2]
    np.testing.assert_allclose(rates(Recipe(schedule="cosine", **common), 10, steps), cosine, atol=1e-6)
    linear = [0, 0.5, 1, 0.8, 0.6, 0.4, 0.2]
    np.testing.assert_allclose(rates(Recipe(schedule="linear", **common), 10, steps), linear, atol=1e-6)
    constant = [0, 0.5, 1, 1, 1, 1, 1]
    without_end = Recipe(schedule="constant", **{**common, "final_learning_rate": 0.0})
    np.testing.assert_allclose(rates(without_end, 10, steps), constant, atol=1e-6)
    assert rates(Recipe(learning_rate=0.5), 10, steps) == [0.5] * 7


def small_model():
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.LayerNormalization(name="norm")]
    )
    return model, keras.ops.ones((2, 3))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lion"])
def test_each_optimizer_uses_the_settings_of_the_recipe(name):
    model, _ = small_model()
    optimizer = Recipe(optimizer=name, weight_decay=0.1, global_clipnorm=2.0, ema=0.5).build_optimizer(model, 10)
    assert optimizer.name.startswith(name.replace("adamw", "adam"))
    assert optimizer.weight_decay == 0.1
    assert optimizer.global_clipnorm == 2.0
    assert optimizer.ema_momentum == 0.5
    assert optimizer.built


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lion"])
def test_without_weight_decay_nothing_decays(name):
    model, _ = small_model()
    before = model.get_weights()
    optimizer = Recipe(optimizer=name, weight_decay=0).build_optimizer(model, 10)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in model.trainable_variables])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_name_of_the_model_exempts_nothing():
    keras.utils.set_random_seed(0)
    model = vit_classifier(num_layers=1, head="mean", head_units=(), name="normal")
    exempt = {v.path for v in Recipe(no_weight_decay=["norm"]).exempt_from_decay(model)}
    assert exempt == {v.path for v in model.trainable_variables if "norm/" in v.path}
    assert len(exempt) == 6  # gamma and beta of three normalisations


def test_an_exemption_that_exempts_nothing_is_a_mistake():
    model, _ = small_model()
    with pytest.raises(ValueError, match=r"names 'biass', and no variable of .* is called so"):
        Recipe(no_weight_decay=["bias", "biass"]).build_optimizer(model, 10)


def test_frozen_weights_may_be_named_too():
    model, _ = small_model()
    for layer in model._flatten_layers():
        layer.trainable = "norm" not in layer.name
    exempt = Recipe(no_weight_decay=["norm", "bias"]).exempt_from_decay(model)
    assert {v.path for v in exempt} == {v.path for v in model.trainable_variables if "bias" in v.path}


def test_a_rate_may_be_a_whole_number():
    model, _ = small_model()
    assert float(Recipe(learning_rate=1, optimizer="sgd").build_optimizer(model, 10).learning_rate) == 1.0


def test_exempt_weights_do_not_decay():
    model, _ = small_model()
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    recipe = Recipe(learning_rate=0.1, weight_decay=0.5, no_weight_decay=["bias", "norm"])
    optimizer = recipe.build_optimizer(model, 10)
    # Without a gradient AdamW only decays: w - rate * decay * w = 1 - 0.05.
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in model.trainable_variables])
    after = {
        variable.path.split("/")[-1]: float(np.ravel(variable.numpy())[0]) for variable in model.trainable_variables
    }
    assert after == {"kernel": pytest.approx(0.95), "bias": 1.0, "gamma": 1.0, "beta": 1.0}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lion"])
def test_every_weight_may_be_exempt(name):
    """Keras on torch fails in the first step of an optimizer that exempts all, so decay is what is left out."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)])
    recipe = Recipe(optimizer=name, weight_decay=0.5, no_weight_decay=["/"])
    with_exemptions = after_a_step(model, recipe)
    without_decay = after_a_step(model, Recipe(optimizer=name, weight_decay=0))
    for weight, expected in zip(with_exemptions, without_decay, strict=True):
        np.testing.assert_array_equal(weight, expected)


def after_a_step(model, recipe):
    """The weights of a copy of the model after one step."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(recipe.build_optimizer(copy, 10), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    copy.train_on_batch(np.array([[0.5, -1.0]], "float32"), np.array([1]))
    return copy.get_weights()
