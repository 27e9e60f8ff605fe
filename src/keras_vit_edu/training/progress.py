"""The progress display of training."""

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from rich.console import Console, ConsoleOptions, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from keras_vit_edu import _interruption

BAR_WIDTH = 24
ONE_LINE = 104  # columns in which bar and numbers stand side by side
STEPS_FOR_A_GUESS = 2  # steps to time before the time left is shown


class ProgressDisplay(keras.callbacks.Callback):
    """Shows the progress of training: epoch, step, rate, loss, accuracy and time left.

    It prints one line per epoch. On a terminal, or in a notebook with ipywidgets, it also draws a bar. On TensorFlow
    and JAX the first step of a session compiles the model; the display then shows "compiling". Rate and time left
    ignore all steps that may compile: the first step, the last step of the first epoch (its batch is often smaller) and
    the first validation.

    Args:
        epochs: number of epochs of the run, or of the phase.
        steps: steps per epoch.
        batch_size: images per step, for the rate.
        console: where to print; None for the standard output.
        phase: name of the phase, printed before the number of the epoch.
        epochs_before: number of epochs in earlier phases; the display counts from there.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        batch_size: int,
        console: Console | None = None,
        phase: str = "epoch",
        epochs_before: int = 0,
    ) -> None:
        super().__init__()
        self.epochs = epochs
        self.phase = phase
        self.epochs_before = epochs_before
        self.steps = steps
        self.batch_size = batch_size
        self.console = console or Console(highlight=False, markup=False)
        self.progress: Progress | None = None
        if _can_draw(self.console):
            bar = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=BAR_WIDTH),
                MofNCompleteColumn(table_column=Column(min_width=2 * len(str(steps)) + 1)),
            )
            if self.console.width >= ONE_LINE:
                self.progress = Progress(*bar, _Numbers(), console=self.console, transient=True)
            else:
                self.progress = _BarAboveNumbers(*bar, console=self.console, transient=True)

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps_done = 0
        self._first_epoch: int | None = None  # not 0 in a resumed run
        self._timed_steps, self._timed_seconds = 0, 0.0
        if self.progress is not None:
            self.progress.start()
            self._task = self.progress.add_task("", total=self.steps, numbers=[])
        elif _compiles(self.model):
            self.console.print("compiling the first step")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        epoch -= self.epochs_before
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._is_first_epoch = epoch == self._first_epoch
        self._epoch_began = time.monotonic()
        if epoch <= self._first_epoch + 1:
            self._step_ended = self._epoch_began  # do not count the pause with the first validation
        self._epoch_steps, self._epoch_seconds = 0, 0.0
        if self.progress is not None:
            numbers = ["compiling"] if self._steps_done == 0 and _compiles(self.model) else []
            self.progress.reset(self._task, description=f"{self.phase} {epoch + 1}/{self.epochs}", numbers=numbers)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if self._steps_done > 0 and not (self._is_first_epoch and batch + 1 == self.steps):
            self._epoch_steps += 1
            self._epoch_seconds += now - max(self._step_ended, self._epoch_began)
            self._timed_steps += 1
            self._timed_seconds += now - self._step_ended
        self._steps_done += 1
        self._step_ended = now
        if self.progress is not None:
            numbers = [*self._speed(), *_numbers(logs), *self._time_left()]
            self.progress.update(self._task, completed=batch + 1, numbers=numbers)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        epoch -= self.epochs_before
        now = time.monotonic()
        fields = [
            f"{self.phase} {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}",
            f"{now - self._epoch_began:6.1f} s",
            *(f"{speed:>11}" for speed in self._speed()),
            *_numbers(logs),
            *(() if epoch + 1 == self.epochs else self._time_left()),
        ]
        width = self.console.width if self.console.is_terminal else None
        self.console.print(_in_lines(fields, width), soft_wrap=True)

    def on_train_end(self, logs: Any = None) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar, also after an interruption."""
        if self.progress is not None:
            self.progress.stop()

    def _speed(self) -> list[str]:
        if self._epoch_steps == 0:
            return []
        seconds = self._epoch_seconds or math.inf  # a coarse clock may not have moved yet
        return [f"{self._epoch_steps * self.batch_size / seconds:.0f} img/s"]

    def _time_left(self) -> list[str]:
        """Estimated time for the remaining steps, from the mean of the timed steps and the pauses between epochs."""
        if self._timed_steps < STEPS_FOR_A_GUESS:
            return []
        steps_left = (self.epochs - (self._first_epoch or 0)) * self.steps - self._steps_done
        minutes, seconds = divmod(round(self._timed_seconds / self._timed_steps * steps_left), 60)
        hours, minutes = divmod(minutes, 60)
        return [f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"]


class _Numbers(ProgressColumn):
    """The numbers of a step, beside the bar."""

    def render(self, task: Task) -> Text:
        return Text(_in_lines(task.fields["numbers"], None))


class _BarAboveNumbers(Progress):
    """A bar with the numbers of a step below it: 80 columns have no room for both on one line."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Any:
        tasks = list(tasks)
        return Group(super().make_tasks_table(tasks), *(_Lines(task.fields["numbers"]) for task in tasks))


@dataclass
class _Lines:
    """Fields on as many lines as the width of the terminal requires."""

    fields: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text(_in_lines(self.fields, options.max_width))


def _compiles(model: keras.Model | None) -> bool:
    """Whether `fit` compiles the training step of a model before the first step."""
    return (
        model is not None and not model.run_eagerly and (keras.backend.backend() != "torch" or bool(model.jit_compile))
    )


def _can_draw(console: Console) -> bool:
    # In a notebook rich draws its bar with ipywidgets, and warns if they are missing.
    return bool(importlib.util.find_spec("ipywidgets") if console.is_jupyter else console.is_terminal)


def _numbers(logs: Any) -> list[str]:
    return [f"{name} {float(value):.4f}" for name, value in (logs or {}).items()]


def _in_lines(fields: Iterable[str], width: int | None) -> str:
    """Join fields with two spaces, on as few lines as possible. A field is never broken."""
    lines = [""]
    for field in fields:
        longer = f"{lines[-1]}  {field}" if lines[-1] else field
        if width is None or len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(f"    {field}")
    return "\n".join(lines)


@contextlib.contextmanager
def counting(console: Console, what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show the progress of a count: a bar on a terminal, and one line at the end.

    Args:
        console: where to print.
        what: name of the work.
        total: number of images.

    Yields:
        A function to call after each image, or with a number after several images.
    """
    began = time.monotonic()
    done = 0
    with contextlib.ExitStack() as stack:
        progress = None
        if _can_draw(console):
            bar = BarColumn(bar_width=BAR_WIDTH)
            progress = stack.enter_context(
                Progress(TextColumn("{task.description}"), bar, MofNCompleteColumn(), console=console, transient=True)
            )
            task = progress.add_task(what, total=total)

        def advance(count: int = 1) -> None:
            nonlocal done
            done += count
            _interruption.check()
            if progress is not None:
                progress.update(task, completed=done)

        yield advance
    console.print(f"{what}: {done:,} images, {time.monotonic() - began:.1f} s")
