"""One training run, from a new model to a folder with everything about it."""

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
from keras_vit_edu._configuration import check_numbers
from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._weights import unshare
from keras_vit_edu.datasets import Augmentation, Batches, ImageDataset, split
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
    """Train a classifier with Keras's `fit`, evaluate it on the test set, and write it all down.

    Call it again with the same folder to resume an interrupted run. Whenever it was interrupted, it ends with the same
    weights, bit for bit, as an uninterrupted one (on the same backend, with the same versions). Make the model anew in
    the same way, and with a `name` (else Keras numbers it): `keras.utils.set_random_seed` with the recipe's seed, then
    the model, fixes weights and dropout masks; the seed also fixes the order of the batches.

    SIGINT (Ctrl-C) and SIGTERM end the run after the batch that is being computed. A second signal ends it at once.

    Written into the run folder: `run.json` (first, and once more at the end), `summary.txt`, `model.png` (if Graphviz
    is installed), `history.csv` and a checkpoint (after each epoch), `accuracy.png`, `loss.png`, `model.keras`
    (uncompiled, so any backend loads it).

    Args:
        model: images `(B, H, W, C)` in [0, 1] to logits `(B, num_classes)`; it is compiled here.
        dataset: what to learn.
        run: where to write.
        recipe: how to train; None for the course's.
        console: for the progress display; None for the standard output.
        callbacks: further Keras callbacks.
        jit_compile: whether to compile the step by XLA (on TensorFlow and JAX) or `torch.compile`; None leaves it to
            Keras, which does so on JAX alone where there is no GPU. Other operations are joined, so rounding differs.

    Returns:
        What `run.json` says: among the rest `test_accuracy` from 0 to 1 and `test_loss`, after the last epoch.

    Raises:
        RunFolderError: if the folder holds the beginning of another run, or its checkpoints are of another model, of a
            newer format, or all damaged.
        ValueError: if the model cannot be saved as its configuration describes it (a Lambda layer, say).
        TrainingFailed: if the loss is no longer a finite number; says where.
        KeyboardInterrupt: after SIGINT or SIGTERM. Weights, optimizer and `run.json` are sound then.
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
    shapes_of(model, dataset.x_train.shape[1:])  # builds it, or complains
    copy_of_model(model)  # complains, before hours of training, if it could not be saved
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
    """The first weights have a share of momentum**steps in the average that is kept."""
    steps = recipe.epochs * steps_per_epoch
    if recipe.ema is not None and recipe.ema**steps > 0.01:
        console.print(
            f"note: this run has {steps} steps, and a moving average of {recipe.ema} will still hold "
            f"{recipe.ema**steps:.0%} of the random weights at its end; a smaller `ema` follows faster"
        )


def fingerprint(dataset: ImageDataset) -> dict[str, Any]:
    """What the dataset is, wherever it lies."""
    digest = hashlib.sha256()
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return {"name": dataset.name, "sha256": digest.hexdigest()}


def _configuration(model: keras.Model) -> dict[str, Any]:
    return keras.saving.serialize_keras_object(model)


def _rewrite_flat_model(run: RunFolder, model: keras.Model) -> None:
    """Rewrite the model of a run that was begun before 0.1.0, when configurations were flat, as it is written now."""
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
        check_numbers(config)
        with within(budget_for(model.count_params(), len(model.weights))):
            config = type(model).from_config(config).get_config()
        configuration["model"] = json.loads(json.dumps({**now, "config": config}))
    except ValueError:
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
    """The defaults of a recipe's fields, and of its augmentation's if it has one."""
    return Recipe(augmentation=Augmentation() if recipe.augmentation else None).to_json()


def _default_arguments(model: keras.Model) -> dict[str, Any]:
    """The defaults of the arguments that make such a model."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
