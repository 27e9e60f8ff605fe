"""Time and peak memory of attention by the number of tokens N, on the explicit and on the fused path.

    python -m benchmarks attention --sweep --backend torch --picture sweep.png

softmax(Q K^T / sqrt(d)) V holds a score for every pair of tokens: twice the tokens, four times the scores, O(N^2).
The explicit path keeps them, in memory too; a fused operation need not (Dao et al. 2022, 2205.14135). Each size of each
path is measured in a fresh process. The projections, which cost O(N), are left out.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks import memory, timing
from keras_vit_edu.layers import attention_weights, fused_attention

SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
HEADS, HEAD = 3, 64  # of ViT-Ti; one image
AGREE = 2e-6  # of the largest output


@dataclasses.dataclass(frozen=True)
class Cost:
    """What attention over so many tokens costs; see `timing.Timing` and `memory.Growth`."""

    tokens: int
    milliseconds: dict[str, float]  # by clock: "elapsed", "processor"
    mebibytes: float


def explicit(query: Any, key: Any, value: Any) -> Any:
    """Heads first, `(B, N, h, d)` to `(B, h, N, d)` and back, as in `MyMultiHeadAttention`."""
    query, key, value = (ops.swapaxes(x, 1, 2) for x in (query, key, value))
    return ops.swapaxes(ops.matmul(attention_weights(query, key), value), 1, 2)


PATHS: dict[str, Callable[..., Any]] = {"explicit": explicit, "fused": fused_attention}


def run(rounds: int, sizes: Sequence[int] = SIZES) -> dict[str, list[Cost]]:
    """By path, the cost of every size."""
    costs: dict[str, list[Cost]] = {path: [] for path in PATHS}
    for tokens in sizes:
        for path in PATHS:
            measured = memory.in_a_fresh_process("benchmarks.sweep", path=path, tokens=tokens, rounds=rounds)
            costs[path].append(Cost(**measured))
    return costs


def measure(path: str, tokens: int, rounds: int) -> dict[str, Any]:
    """The cost of one size on one path, in this process."""
    rng = np.random.default_rng(0)
    shape = (1, tokens, HEADS, HEAD)
    inputs = [ops.convert_to_tensor(rng.normal(size=shape).astype("float32")) for _ in range(3)]
    function = compiled(PATHS[path], inputs)
    grown = memory.growth(function)  # before the other path has left its traces in this process
    agree(function(), PATHS["fused" if path == "explicit" else "explicit"](*inputs))
    taken = timing.compare({path: function}, path, rounds)
    milliseconds = {clock: by_name[path].milliseconds for clock, by_name in taken.items()}
    return dataclasses.asdict(Cost(tokens, milliseconds, grown.growth))


def agree(output: Any, other: Any, tolerance: float = AGREE) -> None:
    """Complain unless both paths compute the same, to a share of the largest."""
    output, other = (ops.convert_to_numpy(x) for x in (output, other))
    difference = np.abs(output - other).max() / np.abs(other).max()
    if not difference <= tolerance:
        raise RuntimeError(f"the paths differ by {difference:.1e} of the largest output")


def compiled(function: Callable[..., Any], inputs: Sequence[Any]) -> Callable[[], Any]:
    """By tf.function and jax.jit; torch runs eagerly, as in Keras, and without gradients."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.no_grad()(lambda: function(*inputs))
    if backend == "tensorflow":
        import tensorflow as tf

        graph = tf.function(function)
    else:
        import jax

        graph = jax.jit(function)
    return lambda: graph(*inputs)


def show(costs: Mapping[str, Sequence[Cost]]) -> None:
    """Print a table, each size with how many times the size before it costs."""
    for path, by_size in costs.items():
        print(f"\n{f'attention, {path}':24}{'elapsed ms':>12}{'times':>8}{'processor ms':>14}{'MiB':>10}{'times':>8}")
        before = None
        for cost in by_size:
            row = f"  {f'N = {cost.tokens}':22}{cost.milliseconds['elapsed']:12.3f}"
            row += f"{_times(cost.milliseconds['elapsed'], before and before.milliseconds['elapsed'])}"
            row += f"{cost.milliseconds['processor']:14.3f}{cost.mebibytes:10.1f}"
            print(row + _times(cost.mebibytes, before and before.mebibytes))
            before = cost


def _times(now: float, before: float | None) -> str:
    return f"{now / before:8.1f}" if before else f"{'':8}"


def draw(costs: Mapping[str, Sequence[Cost]], backend: str, file: Path) -> None:
    """Both against N on logarithmic axes, where O(N^2) is a line that rises twice as fast as it goes to the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    figure.suptitle(f"Attention over N tokens on {backend}: {HEADS} heads of {HEAD}, one image, float32")
    for axes, label, value in (
        (panels[0], "processor time, ms", lambda cost: cost.milliseconds["processor"]),
        (panels[1], "peak memory, MiB", lambda cost: cost.mebibytes),
    ):
        for path, by_size in costs.items():
            shown = [cost for cost in by_size if value(cost) > 0]
            axes.plot([c.tokens for c in shown], [value(c) for c in shown], marker="o", label=path)
        sizes = np.array([cost.tokens for cost in costs["explicit"]], "float64")
        top = value(costs["explicit"][-1])
        axes.plot(sizes, top * (sizes / sizes[-1]) ** 2, "k:", label="$N^2$")
        axes.set(xscale="log", yscale="log", xlabel="tokens N", ylabel=label)
        axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=120)
