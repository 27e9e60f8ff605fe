"""Every figure. The only file that imports matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

try:
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise ImportError('Figures need matplotlib: pip install "keras-vit-edu[cli]"') from None

TRAIN_COLOUR, VALIDATION_COLOUR = "tab:blue", "tab:orange"


def learning_curve(
    history: Mapping[str, Sequence[float]], metric: str, file: str | Path, test_value: float | None = None
) -> None:
    """Draw a metric over the epochs, for training and validation.

    Args:
        history: one value per epoch under `metric` and, if there was validation, under `val_<metric>`.
        metric: `"accuracy"` or `"loss"`, or another key of `history`.
        file: PNG to write.
        test_value: the metric on the test set after the last epoch, drawn as one point.
    """
    epochs = range(1, len(history[metric]) + 1)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, history[metric], color=TRAIN_COLOUR, marker=".", label="train (dropout on, mean over the epoch)")
    if f"val_{metric}" in history:
        axes.plot(epochs, history[f"val_{metric}"], color=VALIDATION_COLOUR, marker=".", label="validation")
    if test_value is not None:
        axes.plot(len(epochs), test_value, "k*", markersize=11, label=f"test, after the last epoch: {test_value:.4f}")
    axes.set(title=f"model {metric}", xlabel="epoch", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
