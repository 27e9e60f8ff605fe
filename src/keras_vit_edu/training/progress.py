"""What a person sees while a model trains."""

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
STEPS_FOR_A_GUESS = 2  # timed before the time left is shown


class ProgressDisplay(keras.callbacks.Callback):
    """Shows how a training goes on: epoch, step, rate, loss, accuracy and time left.

    A bar on a terminal, or in a notebook that has ipywidgets; everywhere a line an epoch. The first step of a session
    compiles the model on TensorFlow and JAX: "compiling" is shown meanwhile. Rate and time left leave out what
    compiles: that step, the last one of the first epoch, whose batch is often smaller, and the first validation.

    Args:
        epochs: how many epochs the run has, or the phase of it that is shown.
        steps: how many steps an epoch has.
        batch_size: how many images a step has, for the rate.
        console: where to; None for the standard output.
        phase: the name of the phase, shown in front of the number of the epoch.
        epochs_before: how many of Keras's epochs belong to the phases before; the display counts from there.
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
        self._first_epoch: int | None = None  # not 0 in a run that is resumed
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
            self._step_ended = self._epoch_began  # the pause before, with the first validation, does not count
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
        """Take the bar away; also after an interruption."""
        if self.progress is not None:
            self.progress.stop()

    def _speed(self) -> list[str]:
        if self._epoch_steps == 0:
            return []
        seconds = self._epoch_seconds or math.inf  # a coarse clock may not have moved yet
        return [f"{self._epoch_steps * self.batch_size / seconds:.0f} img/s"]

    def _time_left(self) -> list[str]:
        """How long the remaining steps will take, at the mean pace of those that were timed, later pauses included."""
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
    """A bar, and the numbers of a step below it: a line of 80 columns has no room for both."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Any:
        tasks = list(tasks)
        return Group(super().make_tasks_table(tasks), *(_Lines(task.fields["numbers"]) for task in tasks))


@dataclass
class _Lines:
    """Fields in as many lines as the width of the terminal asks for."""

    fields: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text(_in_lines(self.fields, options.max_width))


def _compiles(model: keras.Model | None) -> bool:
    """Whether `fit` compiles the step of a model before it runs the first."""
    return (
        model is not None and not model.run_eagerly and (keras.backend.backend() != "torch" or bool(model.jit_compile))
    )


def _can_draw(console: Console) -> bool:
    # In a notebook rich draws its bar with ipywidgets, and warns where they are missing.
    return bool(importlib.util.find_spec("ipywidgets") if console.is_jupyter else console.is_terminal)


def _numbers(logs: Any) -> list[str]:
    return [f"{name} {float(value):.4f}" for name, value in (logs or {}).items()]


def _in_lines(fields: Iterable[str], width: int | None) -> str:
    """Fields with two spaces between, in as few lines as there must be; never broken inside a field."""
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
    """Show how far a count has come: a bar on a terminal, one line at the end everywhere.

    Args:
        console: where to.
        what: what is being done.
        total: how often.

    Yields:
        A function to call after each, or after several with their number.
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
