"""Train a new model, evaluate it, and write the results into a run folder."""

import hashlib
import inspect
import json
import random
from collections.abc import Sequence
from typing import Any

import keras
from rich.console import Console

from keras_vit_edu import _interruption
from keras_vit_edu._building import budget_for, within
from keras_vit_edu._configuration import check_numbers, check_runs_no_code
from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._weights import unshare
from keras_vit_edu.datasets import Augmentation, Batches, ImageDataset, split
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.models.vit_classifier import IN_SCOPE
from keras_vit_edu.training.callbacks import StopWhenAsked, check_finite
from keras_vit_edu.training.pictures import draw_curves, draw_layers, summary
from keras_vit_edu.training.recipe import Recipe, present_names
from keras_vit_edu.training.run_folder import RunFolder
from keras_vit_edu.training.saving import copy_of_model, save_uncompiled
from keras_vit_edu.training.session import Session


def train(
    model: keras.Model,
    dataset: ImageDataset,
    run: RunFolder,
    recipe: Recipe | None = None,
    console: Console | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | None = None,
) -> dict[str, Any]:
    """Train a classifier with Keras's `fit`, evaluate it on the test set, and write the results into a run folder.

    Call `train` again with the same folder to resume an interrupted run. The resumed run ends with the same weights,
    bit for bit, as an uninterrupted run (on the same backend, with the same versions). Build the model again in the
    same way, and give it a `name` (else Keras numbers it). Call `keras.utils.set_random_seed` with the recipe's seed
    before you build the model: this fixes weights and dropout masks. The seed of the recipe also fixes the order of the
        batches.

    SIGINT (Ctrl-C) and SIGTERM end the run after the current batch. A second signal ends it at once.

    The run folder holds `run.json` (written first, and again at the end), `summary.txt`, `model.png` (if Graphviz is
    installed), `history.csv` and a checkpoint (written after each epoch), `accuracy.png`, `loss.png` and `model.keras`
    (uncompiled, so any backend loads it).

    Args:
        model: maps images `(B, H, W, C)` in [0, 1] to logits `(B, num_classes)`. `train` compiles it.
        dataset: images and labels for training and test.
        run: folder for the results.
        recipe: training settings; None for the course's.
        console: shows the progress; None for the standard output.
        callbacks: further Keras callbacks.
        jit_compile: whether to compile the training step with XLA (on TensorFlow and JAX) or `torch.compile`. None
            leaves the choice to Keras: without a GPU it compiles only on JAX. Compilation fuses operations, so rounding
            differs.

    Returns:
        The contents of `run.json`, with `test_accuracy` (0 to 1) and `test_loss` after the last epoch.

    Raises:
        RunFolderError: if the folder holds another run, or if its checkpoints are from another model, in a newer
            format, or all damaged.
        ValueError: if the model cannot be rebuilt from its config, for example because of a Lambda layer.
        TrainingFailed: if the loss is NaN or infinite; the message names the step.
        KeyboardInterrupt: after SIGINT or SIGTERM. Weights, optimizer and `run.json` stay usable.

    Examples:
        >>> from keras_vit_edu import datasets, models, random
        >>> recipe = Recipe(epochs=10)
        >>> random.set_seed(recipe.seed)
        >>> model = models.ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False, name="classifier")
        >>> with RunFolder("runs/digits") as run:  # doctest: +SKIP
        ...     print(train(model, datasets.load("mnist-sample"), run, recipe)["test_accuracy"])
    """
    with _interruption.held():
        return _train(model, dataset, run, recipe or Recipe(), console, callbacks, jit_compile)


def _train(
    model: keras.Model,
    dataset: ImageDataset,
    run: RunFolder,
    recipe: Recipe,
    console: Console | None,
    callbacks: Sequence[keras.callbacks.Callback],
    jit_compile: bool | None,
) -> dict[str, Any]:
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    shapes_of(model, dataset.x_train.shape[1:])  # builds the model, or raises an error
    copy_of_model(model)  # raises an error before hours of training if the model cannot be saved
    (x_train, y_train), (x_validation, y_validation) = split(dataset, recipe.validation_split)
    one_hot = len(dataset.class_names) if recipe.targets_are_rows else None
    augment = recipe.augment if recipe.augmentation else None
    training = Batches(x_train, y_train, recipe.batch_size, seed=recipe.seed, one_hot=one_hot, augment=augment)
    validation = Batches(x_validation, y_validation, recipe.batch_size, shuffle=False, one_hot=one_hot)
    test = Batches(dataset.x_test, dataset.y_test, recipe.batch_size, shuffle=False, one_hot=one_hot)

    _rewrite_flat_model(run, model)
    run.configure(
        {"recipe": _without_name(recipe.to_json()), "dataset": fingerprint(dataset), "model": _configuration(model)},
        defaults={"recipe": _default_recipe(recipe), "model": {"config": _default_arguments(model)}},
        present=_present,
    )
    layers = summary(model)  # before it is compiled: the optimizer's parameters are not the model's
    session = Session(run, console, callbacks, jit_compile)
    optimizer = recipe.build_optimizer(model, len(training))
    session.compile(model, optimizer, recipe.targets_are_rows, recipe.label_smoothing)
    found = session.resume(model)
    with session.running(
        seed=recipe.seed,
        recipe=recipe.to_json(),
        parameters=model.count_params(),
        images={"train": len(x_train), "validation": len(x_validation), "test": len(dataset.x_test)},
        source=dataset.source,
        class_names=list(dataset.class_names),
    ):
        (run / "summary.txt").write_text(layers, encoding="utf-8")
        draw_layers(model, run, console)
        _warn_of_short_average(recipe, len(training), console)
        if found:
            console.print(f"resuming after epoch {found.epochs_done} ({found.file})")
        _interruption.check()
        session.fit(model, recipe, training, validation)
        unshare(model)
        measured = model.evaluate(test, verbose=0, return_dict=True, callbacks=[StopWhenAsked()])
        check_finite(measured, "on the test images")
        history = session.history.values
        draw_curves(history, run, console, measured)
        save_uncompiled(model, run / "model.keras")

    seconds = sum(history["seconds"])
    return session.finish(
        train_accuracy=history["accuracy"][-1],
        validation_accuracy=history["val_accuracy"][-1],
        test_accuracy=round(float(measured["accuracy"]), 6),
        test_loss=float(measured["loss"]),
        timings={
            "training_seconds": round(seconds, 2),
            "seconds_per_epoch": round(seconds / session.epochs_done, 2),
            "seconds_per_checkpoint": session.seconds_per_checkpoint,
        },
    )


def _warn_of_short_average(recipe: Recipe, steps_per_epoch: int, console: Console) -> None:
    """Print a note if the run is too short for its moving average: the initial weights keep a share of ema**steps."""
    steps = recipe.epochs * steps_per_epoch
    if recipe.ema is not None and recipe.ema**steps > 0.01:
        console.print(
            f"note: this run has {steps} steps. A moving average of {recipe.ema} still holds {recipe.ema**steps:.0%} "
            "of the random weights at the end. A smaller `ema` follows faster."
        )


def fingerprint(dataset: ImageDataset) -> dict[str, Any]:
    """Identify a dataset by its name and a SHA-256 of its arrays, independent of its location."""
    digest = hashlib.sha256()
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return {"name": dataset.name, "sha256": digest.hexdigest()}


def _configuration(model: keras.Model) -> dict[str, Any]:
    """The configuration of a model. The name of a backbone does not count: Keras numbers it."""
    configuration = keras.saving.serialize_keras_object(model)
    config = configuration["config"]
    if isinstance(model, ViTClassifier):
        backbone = {name: value for name, value in config["backbone"].items() if name != IN_SCOPE}
        config = {**config, "backbone": {**backbone, "config": {**backbone["config"], "name": "backbone"}}}
    return {**configuration, "config": config}


def _rewrite_flat_model(run: RunFolder, model: keras.Model) -> None:
    """Rewrite the flat model configuration in a run from before 0.1.0 in today's nested form."""
    configuration, now = run.record.get("configuration"), _configuration(model)
    begun = configuration.get("model") if isinstance(configuration, dict) else None
    config = begun.get("config") if isinstance(begun, dict) else None
    if (
        not isinstance(configuration, dict)
        or not isinstance(config, dict)
        or "backbone" in config
        or "backbone" not in now["config"]
    ):
        return
    state = random.getstate()  # building a model draws seeds
    try:
        check_runs_no_code(config)
        check_numbers(config)
        with within(budget_for(model.count_params(), len(model.weights))):
            config = _configuration(type(model).from_config(config))["config"]
        configuration["model"] = json.loads(json.dumps({**now, "config": config}))
    except Exception:  # layers and backends raise any error for absurd arguments
        pass  # `configure` says what differs
    finally:
        random.setstate(state)


def _without_name(recipe: dict[str, Any]) -> dict[str, Any]:
    """The fields that decide how a run comes out."""
    return {field: value for field, value in recipe.items() if field != "name"}


def _present(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that an older version began, as this version has it."""
    recipe = configuration.get("recipe")
    if not isinstance(recipe, dict):
        return configuration
    return {**configuration, "recipe": _without_name(present_names(recipe))}


def _default_recipe(recipe: Recipe) -> dict[str, Any]:
    """The default values of a recipe, and of its augmentation if it has one."""
    return Recipe(augmentation=Augmentation() if recipe.augmentation else None).to_json()


def _default_arguments(model: keras.Model) -> dict[str, Any]:
    """The default values of the model's constructor arguments."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
