"""The progress display of a parity run."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class ParityProgress:
    """Shows the current check of each backend: a line per backend on a terminal or in a notebook, else per check.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tasks: dict[str, Any] = {}
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not (console.is_terminal or console.is_jupyter),
        )

    def __enter__(self) -> "ParityProgress":
        self.progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.stop()

    def show(self, backend: str, step: Mapping[str, Any]) -> None:
        """A step that a backend's process has taken."""
        if self.progress.disable:
            if step.get("step") in ("measured", "failed"):
                self.console.print(f"{backend:10}  {step['check']:18} {step['step']}, {step['seconds']:.1f} s")
            return
        if backend not in self.tasks:
            self.tasks[backend] = self.progress.add_task("", total=None)
        doing = step.get("check") or ("waits for the others" if "waiting" in step else "begins")
        self.progress.update(self.tasks[backend], description=f"{backend:10}  {doing}")
