"""One training run, from a new model to a folder with everything about it."""

import contextlib
import hashlib
import inspect
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from keras_vit_edu import _interruption
from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._keras_internals import moving_averages
from keras_vit_edu._machine import environment
from keras_vit_edu._weights import copy_of, copy_variables, unshare
from keras_vit_edu.datasets import Augmentation, Batches, ImageDataset, split
from keras_vit_edu.training.checkpoint import save_checkpoint
from keras_vit_edu.training.picture_of_layers import draw_layers
from keras_vit_edu.training.progress import ProgressDisplay
from keras_vit_edu.training.recipe import Recipe
from keras_vit_edu.training.run_folder import CHECKPOINTS, RunFolder, now
from keras_vit_edu.training.stop_when_asked import StopWhenAsked


class TrainingFailed(RuntimeError):
    """The run cannot go on; its last checkpoint is kept."""


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

    run.configure(
        {"recipe": recipe.to_json(), "dataset": fingerprint(dataset), "model": _configuration(model)},
        defaults={"recipe": _default_recipe(recipe), "model": {"config": _default_arguments(model)}},
    )
    layers = summary(model)  # before it is compiled: the optimizer's parameters are not the model's
    optimizer = recipe.build_optimizer(model, len(training))
    compile_classifier(model, optimizer, recipe.targets_are_rows, recipe.label_smoothing, jit_compile)
    found = run.load_newest(model, console.print)
    history = History(run, found.history if found else {})
    session = {"started": now(), "epochs_done": history.epochs_done, **environment(), "jit_compile": jit_compile}
    run.update(
        status="running",
        **environment(),
        seed=recipe.seed,
        recipe=recipe.to_json(),
        parameters=model.count_params(),
        images={"train": len(x_train), "validation": len(x_validation), "test": len(dataset.x_test)},
        source=dataset.source,
        class_names=list(dataset.class_names),
        sessions=[*run.record.get("sessions", []), session],
    )
    checkpoints = KeepCheckpoints(run / CHECKPOINTS, history)
    display = ProgressDisplay(recipe.epochs, len(training), recipe.batch_size, console)
    try:
        (run / "summary.txt").write_text(layers, encoding="utf-8")
        draw_layers(model, run, console)
        _warn_of_short_average(recipe, len(training), console)
        if found:
            console.print(f"resuming after epoch {found.epochs_done} ({found.file})")
        _interruption.check()
        measured = _fit_and_test(model, training, validation, test, recipe, history, checkpoints, display, callbacks)
        check_finite(measured, "on the test images")
        draw_curves(history.values, run, console, measured)
        save_uncompiled(model, run / "model.keras")
        _interruption.check()
    except BaseException as error:
        display.close()
        status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
        with contextlib.suppress(OSError):  # a full disk must not hide what filled it
            run.update(status=status, stopped=now(), reason=str(error), epochs_done=checkpoints.epochs_done)
        raise

    seconds = sum(history.values["seconds"])
    run.update(
        status="finished",
        finished=now(),
        epochs_done=history.epochs_done,
        train_accuracy=history.values["accuracy"][-1],
        validation_accuracy=history.values["val_accuracy"][-1],
        test_accuracy=round(float(measured["accuracy"]), 6),
        test_loss=float(measured["loss"]),
        timings={
            "training_seconds": round(seconds, 2),
            "seconds_per_epoch": round(seconds / history.epochs_done, 2),
            "seconds_per_checkpoint": checkpoints.seconds_each,
        },
    )
    return run.record


def _fit_and_test(
    model: keras.Model,
    training: Batches,
    validation: Batches,
    test: Batches,
    recipe: Recipe,
    history: "History",
    checkpoints: "KeepCheckpoints",
    display: ProgressDisplay,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, float]:
    """Go through the epochs that are left; loss and accuracy on the test set."""
    model.fit(
        training,
        validation_data=validation,
        epochs=recipe.epochs,
        initial_epoch=history.epochs_done,
        shuffle=False,  # `Batches` has its own order
        verbose=0,
        callbacks=[
            training.follow_epochs(),
            *([ValidateWithAverage()] if recipe.ema else []),
            StopIfNotFinite(),
            history,
            checkpoints,
            display,
            *callbacks,
            StopWhenAsked(),
        ],
    )
    unshare(model)
    return model.evaluate(test, verbose=0, return_dict=True, callbacks=[StopWhenAsked()])


def _warn_of_short_average(recipe: Recipe, steps_per_epoch: int, console: Console) -> None:
    """The first weights have a share of momentum**steps in the average that is kept."""
    steps = recipe.epochs * steps_per_epoch
    if recipe.ema is not None and recipe.ema**steps > 0.01:
        console.print(
            f"note: this run has {steps} steps, and a moving average of {recipe.ema} will still hold "
            f"{recipe.ema**steps:.0%} of the random weights at its end; a smaller `ema` follows faster"
        )


def compile_classifier(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    rows: bool = False,
    label_smoothing: float = 0.0,
    jit_compile: bool | None = None,
) -> None:
    """Compile a model that gives logits, with cross-entropy and accuracy, and build its optimizer.

    Args:
        model: images to logits.
        optimizer: how to train it.
        rows: whether a label is a row of shares of every class, not a class's number.
        label_smoothing: share of the target spread over all classes; wants rows.
        jit_compile: as in `train`.
    """
    loss: keras.losses.Loss
    metric: keras.metrics.Metric
    if rows:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
        metric = keras.metrics.CategoricalAccuracy(name="accuracy")
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(
        optimizer=optimizer, loss=loss, metrics=[metric], jit_compile="auto" if jit_compile is None else jit_compile
    )
    # Under mixed_float16 Keras has just put another one around it, whose variables a checkpoint has too.
    model.optimizer.build(model.trainable_variables)


def fingerprint(dataset: ImageDataset) -> dict[str, Any]:
    """What the dataset is, wherever it lies."""
    digest = hashlib.sha256()
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return {"name": dataset.name, "sha256": digest.hexdigest()}


def _configuration(model: keras.Model) -> dict[str, Any]:
    return keras.saving.serialize_keras_object(model)


def _default_recipe(recipe: Recipe) -> dict[str, Any]:
    """The defaults of a recipe's fields, and of its augmentation's if it has one."""
    return Recipe(augmentation=Augmentation() if recipe.augmentation else None).to_json()


def _default_arguments(model: keras.Model) -> dict[str, Any]:
    """The defaults of the arguments that make such a model."""
    parameters = inspect.signature(type(model).__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


class History(keras.callbacks.Callback):
    """Keeps what each epoch measured, and its seconds, and writes `history.csv` after each."""

    def __init__(self, run: RunFolder, values: dict[str, list[float]]) -> None:
        super().__init__()
        self.run = run
        self.values = values

    @property
    def epochs_done(self) -> int:
        """How many epochs came to their end."""
        return len(next(iter(self.values.values()), []))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = round(time.monotonic() - self._began, 2)
        for name, value in {**(logs or {}), "seconds": seconds}.items():
            self.values.setdefault(name, []).append(float(value))
        self.run.write_history(self.values)


class KeepCheckpoints(keras.callbacks.Callback):
    """A checkpoint at the end of every epoch."""

    def __init__(self, folder: Path, history: History) -> None:
        super().__init__()
        self.folder = folder
        self.history = history
        self.epochs_done = history.epochs_done  # as the newest checkpoint has it
        self._seconds: list[float] = []

    @property
    def seconds_each(self) -> float:
        """How long one took in this session, in the mean; 0 if none was made."""
        return round(sum(self._seconds) / max(len(self._seconds), 1), 3)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        began = time.monotonic()
        save_checkpoint(self.folder, self.model, epoch + 1, self.history.values)
        self.epochs_done = epoch + 1
        self._seconds.append(time.monotonic() - began)


class StopIfNotFinite(keras.callbacks.Callback):
    """Ends the run at the first loss that is no finite number, of a step or of a validation: no checkpoint of it.

    Args:
        phase: what is counted, in the message.
        epochs_before: how many of Keras's epochs belong to the phases before.
    """

    def __init__(self, phase: str = "epoch", epochs_before: int = 0) -> None:
        super().__init__()
        self.phase = phase
        self.epochs_before = epochs_before

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = f"{self.phase} {epoch + 1 - self.epochs_before}"

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss is {loss} since step {batch + 1} of {self._epoch}; a lower learning rate or "
                "clipping may help. The last checkpoint is kept."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        check_finite(logs or {}, f"after {self._epoch}")


def check_finite(logs: Mapping[str, float], when: str) -> None:
    """A `TrainingFailed` if one of the numbers is none: the last step spoils weights after its loss was computed."""
    for name, value in logs.items():
        if not math.isfinite(value):
            raise TrainingFailed(f"{name} is {float(value)} {when}; a lower learning rate or clipping may help.")


class ValidateWithAverage(keras.callbacks.Callback):
    """Puts the optimizer's moving average of the weights into the model while it is validated.

    (`keras.callbacks.SwapEMAWeights` does the same, but on TensorFlow by additions that round the weights.)
    """

    def on_test_begin(self, logs: Any = None) -> None:
        weights = self.model.trainable_variables
        averages = moving_averages(self.model.optimizer)
        self._kept = [copy_of(variable.value) for variable in weights]
        for variable, average in zip(weights, averages, strict=True):
            variable.assign(copy_of(average.value))

    def on_test_end(self, logs: Any = None) -> None:
        for variable, kept in zip(self.model.trainable_variables, self._kept, strict=True):
            variable.assign(kept)


def summary(model: keras.Model) -> str:
    """What `model.summary()` prints, the layers inside of layers too, 100 characters wide on any terminal."""
    lines: list[str] = []
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # Keras cuts the table off at the width of the terminal
    try:
        model.summary(expand_nested=True, line_length=100, print_fn=lambda line, line_break=True: lines.append(line))
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(lines) + "\n"


def save_uncompiled(model: keras.Model, path: str | Path) -> None:
    """Save a model as `.keras` without its optimizer, loss and metrics, so that every backend can load the file.

    (Keras writes the optimizer's class into the file, and on torch that is one that the others do not have.) Dropout
    counters are saved too: training goes on with the masks that would have been next.

    Args:
        model: any Keras model that its configuration describes.
        path: ends in `.keras`.

    Raises:
        ValueError: if its configuration does not describe it, or it has LoRA's matrices in it.
    """
    copy = copy_of_model(model)
    copy_variables(model.variables, copy.variables)
    copy.save(path)


def copy_of_model(model: keras.Model) -> keras.Model:
    """A model like `model`, uncompiled and with new weights.

    Raises:
        ValueError: if its configuration does not describe it.
    """
    try:
        copy = type(model).from_config(model.get_config())
        if not copy.built:  # a subclass
            copy.build_from_config(model.get_build_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            "A model must be one that its configuration describes, to be saved. "
            f"Received: {model.name}, of which Keras says: {reason}"
        ) from error
    same = [tuple(v.shape) for v in copy.variables] == [tuple(v.shape) for v in model.variables]
    if not same:
        raise ValueError(
            f"A model must be one that its configuration describes, to be saved. Received: {model.name}, which has "
            f"{len(model.variables)} variables, where its configuration makes others ({len(copy.variables)})"
        )
    return copy


def draw_curves(
    history: Mapping[str, Sequence[float]],
    run: RunFolder,
    console: Console,
    measured: Mapping[str, float] | None = None,
    phases: Sequence[tuple[str, int]] = (),
) -> None:
    """Draw `accuracy.png` and `loss.png`, or say what is missing for it.

    Args:
        history: a value per epoch of each metric.
        run: where to.
        console: where to say what is missing.
        measured: what the test images gave.
        phases: the names of the phases and their numbers of epochs, if there are several.
    """
    try:
        from keras_vit_edu import plots
    except ImportError as error:
        console.print(f"{error} (no accuracy.png and loss.png)")
        return
    for metric in ("accuracy", "loss"):
        plots.learning_curve(history, metric, run / f"{metric}.png", (measured or {}).get(metric), phases)
