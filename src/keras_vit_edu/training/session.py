"""The life of a run: begun or resumed, then finished, interrupted or failed. `train` and `fine_tune` share it."""

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
    """One call that trains in a run folder.

    The calls in their order: `run.configure`; then, once for each phase, `compile`, `resume` and `fit`, all or the last
    inside of `running`; then `finish`.

    Args:
        run: the folder, new or with a run to resume.
        console: where progress is shown.
        callbacks: further Keras callbacks.
        jit_compile: as in `train`.

    Attributes:
        history: what each epoch of the run measured, those of earlier sessions too.
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
        """How many epochs the newest checkpoint has; 0 before the first phase is resumed."""
        return 0 if self._checkpoints is None else self._checkpoints.epochs_done

    @property
    def seconds_per_checkpoint(self) -> float:
        """How long one took, in the mean of the phase that was resumed last; 0 if it made none."""
        return 0.0 if self._checkpoints is None else self._checkpoints.seconds_each

    def compile(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        rows: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        """Compile a model that gives logits, with cross-entropy and accuracy, and build its optimizer.

        Args:
            model: images to logits.
            optimizer: how to train it.
            rows: whether a label is a row of shares of every class, not a class's number.
            label_smoothing: share of the target spread over all classes; needs rows.
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
        # Under mixed_float16 Keras has just put another one around it, whose variables a checkpoint has too.
        model.optimizer.build(model.trainable_variables)

    def resume(self, model: keras.Model, phase: str | None = None) -> Checkpoint | None:
        """Put the newest checkpoint into a compiled model, and take its history.

        Args:
            model: compiled, its optimizer built.
            phase: the name of a phase that has checkpoints of its own.

        Returns:
            What the checkpoint says; None if there is none yet.

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
        """Around all work on the run: `run.json` says that it is running and, if an error ends the block, why.

        Args:
            **entries: of `run.json`, JSON.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM; the run is `"interrupted"`. After any other error it is
                `"failed"`.
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
            with contextlib.suppress(OSError):  # a full disk must not hide what filled it
                self.run.update(status=status, stopped=now(), reason=str(error), epochs_done=self.epochs_done)
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
        """Train for the epochs that are left, with a checkpoint after each.

        Args:
            model: compiled and resumed.
            recipe: how many epochs, and whether there is a moving average of the weights.
            training: what to learn.
            validation: measured after each epoch; None for nothing.
            phase: what the display and errors call an epoch.
            epochs_before: how many epochs the phases before had.
            class_weights: how much each class counts; None for the same.

        Raises:
            TrainingFailed: if the loss is no longer a finite number.
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
        """Say that the run has come to its end.

        Args:
            **entries: of `run.json`, JSON.

        Returns:
            All that `run.json` says.
        """
        self.run.update(status="finished", finished=now(), epochs_done=self.epochs_done, **entries)
        return self.run.record
