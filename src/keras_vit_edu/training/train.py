"""One training run, from a new model to a folder with everything about it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from keras_vit_edu import _checks
from keras_vit_edu.datasets import Batches, ImageDataset, split
from keras_vit_edu.training.progress import ProgressDisplay
from keras_vit_edu.training.run_folder import RunFolder, environment, now


def train(
    model: keras.Model,
    dataset: ImageDataset,
    run: RunFolder,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    validation_split: float = 0.1,
    seed: int = 0,
    console: Console | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Train a classifier with Keras's `fit`, evaluate it on the test set, and write it all down.

    AdamW (Loshchilov and Hutter 2019), cross-entropy of logits, and the last part of the training images kept for
    validation: the course's program. The seed fixes the order of the batches; the weights and the dropout masks were
    fixed as the model was built (`keras.utils.set_random_seed` before it).

    Written into the run folder: `run.json` (first, and once more at the end), `summary.txt`, `model.png` (if Graphviz
    is installed), `history.csv` (after each epoch), `accuracy.png`, `loss.png`, `model.keras` (uncompiled, so any
    backend loads it).

    Args:
        model: images `(B, 28, 28, 1)` in [0, 1] to logits `(B, num_classes)`; it is compiled here.
        dataset: what to learn.
        run: where to write.
        epochs: how often to go through the training images.
        batch_size, learning_rate, weight_decay, validation_split: as the names say.
        seed: int in [0, 2**31), of the order of the batches.
        console: for the progress display; None for the standard output.
        callbacks: further Keras callbacks.

    Returns:
        What `run.json` says: among the rest `test_accuracy` from 0 to 1 and `test_loss`, after the last epoch.

    Raises:
        ValueError: for arguments out of range.
    """
    epochs = _checks.positive_int("epochs", epochs)
    console = console or Console(highlight=False)
    (x_train, y_train), (x_validation, y_validation) = split(dataset, validation_split)
    training = Batches(x_train, y_train, batch_size, seed=seed)
    validation = Batches(x_validation, y_validation, batch_size, shuffle=False)
    test = Batches(dataset.x_test, dataset.y_test, batch_size, shuffle=False)

    run.update(
        status="running",
        started=now(),
        **environment(),
        model=model.name,
        parameters=model.count_params(),
        dataset={
            "name": dataset.name,
            "source": dataset.source,
            "train": len(x_train),
            "validation": len(x_validation),
            "test": len(dataset.x_test),
            "class_names": list(dataset.class_names),
        },
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        optimizer={"name": "AdamW", "learning_rate": learning_rate, "weight_decay": weight_decay},
    )
    describe(model, run, console)

    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate=learning_rate, weight_decay=weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    history = History(run)
    display = ProgressDisplay(epochs, len(training), console)
    began = time.monotonic()
    try:
        model.fit(
            training,
            validation_data=validation,
            epochs=epochs,
            shuffle=False,  # `Batches` has its own order
            verbose=0,
            callbacks=[training.follow_epochs(), history, display, *callbacks],
        )
    except BaseException as error:
        display.close()
        stopped = isinstance(error, KeyboardInterrupt)
        run.update(status="interrupted" if stopped else "failed", stopped=now(), epochs_done=history.epochs_done)
        raise
    seconds = time.monotonic() - began

    measured = model.evaluate(test, verbose=0, return_dict=True)
    _draw_curves(history, measured, run, console)
    save_uncompiled(model, run / "model.keras")
    run.update(
        status="finished",
        finished=now(),
        epochs_done=history.epochs_done,
        train_accuracy=history.values["accuracy"][-1],
        validation_accuracy=history.values["val_accuracy"][-1],
        test_accuracy=round(float(measured["accuracy"]), 6),
        test_loss=float(measured["loss"]),
        timings={"training_seconds": round(seconds, 2), "seconds_per_epoch": round(seconds / epochs, 2)},
    )
    return run.record


class History(keras.callbacks.Callback):
    """Keeps what each epoch measured, and its seconds, and writes `history.csv` after each."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
        self.values: dict[str, list[float]] = {}

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


def describe(model: keras.Model, run: RunFolder, console: Console) -> None:
    """Write `summary.txt`, and `model.png` if Graphviz is there (else say how to get it)."""
    (run / "summary.txt").write_text(summary(model), encoding="utf-8")
    try:
        keras.utils.plot_model(model, to_file=run / "model.png", show_shapes=True, expand_nested=True, dpi=96)
    except (ImportError, OSError) as error:  # no pydot; no Graphviz; a Graphviz that fails
        run.update(notes=[f"no model.png: {error}"])
    if not (run / "model.png").is_file():
        console.print(
            'model.png needs Graphviz (https://graphviz.org, "apt install graphviz") and "pip install pydot"; '
            "the run goes on without it."
        )


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
    """
    copy = type(model).from_config(model.get_config())
    for ours, theirs in zip(copy.variables, model.variables, strict=True):
        ours.assign(theirs)
    copy.save(path)


def _draw_curves(history: History, measured: dict[str, float], run: RunFolder, console: Console) -> None:
    try:
        from keras_vit_edu import plots
    except ImportError as error:
        console.print(f"{error} (no accuracy.png and loss.png)")
        return
    for metric in ("accuracy", "loss"):
        plots.learning_curve(history.values, metric, run / f"{metric}.png", measured[metric])
