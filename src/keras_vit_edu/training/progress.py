"""What a person sees while a model trains."""

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from keras_vit_edu import _interruption


class ProgressDisplay(keras.callbacks.Callback):
    """Shows how a training goes on: epoch, step, rate, loss, accuracy and time left.

    A bar on a terminal, or in a notebook that has ipywidgets; everywhere a line an epoch.

    Args:
        epochs: how many epochs the run has.
        steps: how many steps an epoch has.
        batch_size: how many images a step has, for the rate.
        console: where to; None for the standard output.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, console: Console | None = None) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.console = console or Console(highlight=False, markup=False)
        self.progress: Progress | None = None
        if _can_draw(self.console):
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24 if self.console.width > 96 else 6),
                MofNCompleteColumn(table_column=Column(min_width=2 * len(str(steps)) + 1)),
                TextColumn("{task.fields[numbers]}"),
                console=self.console,
                transient=True,
            )

    def on_train_begin(self, logs: Any = None) -> None:
        self._began = time.monotonic()
        self._steps_done = 0
        self._first_epoch: int | None = None  # not 0 where a run is gone on with
        if self.progress is not None:
            self.progress.start()
            self._task = self.progress.add_task("", total=self.steps, numbers="")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._epoch_began = time.monotonic()
        if self.progress is not None:
            self.progress.reset(self._task, description=f"epoch {epoch + 1}/{self.epochs}", numbers="")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._steps_done += 1
        seconds = (time.monotonic() - self._epoch_began) or math.inf  # a coarse clock may not have moved yet
        self._rate = (batch + 1) * self.batch_size / seconds
        if self.progress is not None:
            numbers = f"{self._rate:5.0f} img/s  {_numbers(logs)}  {self._time_left()}"
            self.progress.update(self._task, completed=batch + 1, numbers=numbers)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.monotonic() - self._epoch_began
        last = epoch + 1 == self.epochs
        self.console.print(
            f"epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}  {seconds:6.1f} s  {self._rate:5.0f} img/s"
            f"  {_numbers(logs)}" + ("" if last else f"  {self._time_left()}")
        )

    def on_train_end(self, logs: Any = None) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; also after an interruption."""
        if self.progress is not None:
            self.progress.stop()

    def _time_left(self) -> str:
        steps_left = (self.epochs - (self._first_epoch or 0)) * self.steps - self._steps_done
        seconds = (time.monotonic() - self._began) / self._steps_done * steps_left
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def _can_draw(console: Console) -> bool:
    # In a notebook rich draws its bar with ipywidgets, and warns where they are missing.
    return bool(importlib.util.find_spec("ipywidgets") if console.is_jupyter else console.is_terminal)


def _numbers(logs: Any) -> str:
    return "  ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())


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
            bar = BarColumn(bar_width=24)
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
