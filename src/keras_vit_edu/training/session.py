"""The life of a run: it begins or resumes, then finishes, is interrupted or fails. `train` and `fine_tune` share it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from rich.console import Console

from keras_vit_edu import _interruption
from keras_vit_edu._machine import environment
from keras_vit_edu.datasets import Batches
from keras_vit_edu.training.callbacks import (
    History,
    KeepCheckpoints,
    StopIfNotFinite,
    StopWhenAsked,
    ValidateWithAverage,
)
from keras_vit_edu.training.checkpoint import Checkpoint
from keras_vit_edu.training.progress import ProgressDisplay
from keras_vit_edu.training.recipe import Recipe
from keras_vit_edu.training.run_folder import RunFolder, now


class Session:
    """One call of `train` or `fine_tune` in a run folder.

    Call in this order: `run.configure`; then `compile`, `resume` and `fit` once per phase; then `finish`. Call `fit`
    inside `running`; `compile` and `resume` may be inside or before it.

    Args:
        run: folder of the run.
        console: shows the progress.
        callbacks: further Keras callbacks.
        jit_compile: as in `train`.

    Attributes:
        history: metrics of each epoch, earlier sessions included.
    """

    def __init__(
        self,
        run: RunFolder,
        console: Console,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        jit_compile: bool | None = None,
    ) -> None:
        self.run, self.console, self.callbacks, self.jit_compile = run, console, callbacks, jit_compile
        self.history = History(run, {})
        self._checkpoints: KeepCheckpoints | None = None  # of the phase that was resumed last

    @property
    def epochs_done(self) -> int:
        """Number of epochs in the newest checkpoint; 0 before the first call of `resume`."""
        return 0 if self._checkpoints is None else self._checkpoints.epochs_done

    @property
    def seconds_per_checkpoint(self) -> float:
        """Mean seconds per checkpoint in the last phase; 0 without checkpoints."""
        return 0.0 if self._checkpoints is None else self._checkpoints.seconds_each

    def compile(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        rows: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        """Compile a classifier with cross-entropy and accuracy, and build its optimizer.

        Args:
            model: maps images to logits.
            optimizer: optimizer of its weights.
            rows: whether a label is a row of class probabilities instead of a class index.
            label_smoothing: share of the target that is spread over all classes; requires `rows`.
        """
        loss: keras.losses.Loss
        metric: keras.metrics.Metric
        if rows:
            loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
            metric = keras.metrics.CategoricalAccuracy(name="accuracy")
        else:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        jit_compile = "auto" if self.jit_compile is None else self.jit_compile
        model.compile(optimizer=optimizer, loss=loss, metrics=[metric], jit_compile=jit_compile)
        # Under mixed_float16 Keras wraps the optimizer. A checkpoint also holds the variables of the wrapper.
        model.optimizer.build(model.trainable_variables)

    def resume(self, model: keras.Model, phase: str | None = None) -> Checkpoint | None:
        """Load the newest checkpoint into a compiled model, and its history into the session.

        Args:
            model: compiled, with a built optimizer.
            phase: name of a phase with separate checkpoints; None for the checkpoints of the run.

        Returns:
            The checkpoint; None if there is none yet.

        Raises:
            RunFolderError: as `RunFolder.load_newest`.
        """
        found = self.run.load_newest(model, self.console.print, phase)
        if found is not None:
            self.history.values = found.history
        self._checkpoints = KeepCheckpoints(self.run.checkpoints(phase), self.history)
        return found

    @contextlib.contextmanager
    def running(self, **entries: Any) -> Iterator[None]:
        """Record in `run.json` that the run is running, and, if an error ends the block, why it stopped.

        Args:
            **entries: entries for `run.json`, JSON.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM. The status becomes `"interrupted"`; after any other error it
                becomes `"failed"`.
        """
        resumed = {} if self._checkpoints is None else {"epochs_done": self.epochs_done}
        session = {"started": now(), **resumed, **environment(), "jit_compile": self.jit_compile}
        sessions = [*self.run.record.get("sessions", []), session]
        self.run.update(status="running", **environment(), **entries, sessions=sessions)
        try:
            yield
            _interruption.check()
        except BaseException as error:
            status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                # Between the phases of `fine_tune` the next phase has no checkpoint yet.
                done = max(self.epochs_done, self.run.record.get("epochs_done", 0))
                self.run.update(status=status, stopped=now(), reason=str(error), epochs_done=done)
            raise

    def fit(
        self,
        model: keras.Model,
        recipe: Recipe,
        training: Batches,
        validation: Batches | None,
        phase: str = "epoch",
        epochs_before: int = 0,
        class_weights: Mapping[int, float] | None = None,
    ) -> None:
        """Train for the remaining epochs, and save a checkpoint after each.

        Args:
            model: model after `compile` and `resume`.
            recipe: its `epochs`, `batch_size` and `ema` are used.
            training: training batches.
            validation: batches to validate on after each epoch; None for no validation.
            phase: name of the phase, for the display and for errors.
            epochs_before: number of epochs in earlier phases.
            class_weights: weight of each class in the loss; None for equal weights.

        Raises:
            TrainingFailed: if the loss is NaN or infinite.
            KeyboardInterrupt: after SIGINT or SIGTERM.
        """
        assert self._checkpoints is not None
        display = ProgressDisplay(recipe.epochs, len(training), recipe.batch_size, self.console, phase, epochs_before)
        try:
            model.fit(
                training,
                validation_data=validation,
                epochs=epochs_before + recipe.epochs,
                initial_epoch=self.history.epochs_done,
                shuffle=False,  # `Batches` has its own order
                verbose=0,
                class_weight=class_weights,
                callbacks=[
                    training.follow_epochs(),
                    *([ValidateWithAverage()] if recipe.ema else []),
                    StopIfNotFinite(phase, epochs_before),
                    self.history,
                    self._checkpoints,
                    display,
                    *self.callbacks,
                    StopWhenAsked(),
                ],
            )
        finally:
            display.close()

    def finish(self, **entries: Any) -> dict[str, Any]:
        """Record in `run.json` that the run is finished.

        Args:
            **entries: entries for `run.json`, JSON.

        Returns:
            The contents of `run.json`.
        """
        self.run.update(status="finished", finished=now(), epochs_done=self.epochs_done, **entries)
        return self.run.record
