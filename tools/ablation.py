"""Which technique helped, from Program P to the presets: runs of equal length, each with one more technique.

    python tools/ablation.py --data MNIST.NPZ --out FOLDER --seeds 0 1 --picture docs/images/ablation.png

Every row is trained on the 10,000 training images of the bundled sample, where a technique shows its effect sooner than
on 60,000, and tested on all of MNIST's test images. It is one `keras-vit-edu train` command, which is printed first.
The run folder is `FOLDER/<row>-<seed>`. To resume, run the same call again. At the end the tool prints the
table, with the commands, and draws it.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SCHEDULE = (
    "--schedule cosine --warmup-epochs 3 --final-learning-rate 1e-6 --global-clipnorm 1 --weight-decay 0.05 "
    "--no-weight-decay bias --no-weight-decay norm --no-weight-decay position_embedding"
)
EMA = "--ema 0.99"  # of the last 100 steps, where the recipes for 60,000 images have 0.999
SMOOTHING = "--label-smoothing 0.05"
AUGMENTATION = "--augmentation digits --augmentation-final-epochs 5 --augmentation-final-strength 0.3"
PROGRAM_P = "--preset vit_mnist_program_p --recipe program-p"
NARROW = (
    f"--preset vit_mnist_pure --recipe pure {EMA} --warmup-epochs 3 --validation-split 0.1 "
    "--override stem=patches --override stochastic_depth=0 --override head_dropout=0"
)
AS_PUBLISHED = "--override locality=null --override num_heads=4 --override key_dim=32"

# By name of the row: what it adds to the one before, and the options of `train`.
ROWS = {
    "program-p": ("Program P of the course", PROGRAM_P),
    "schedule": (
        "+ cosine schedule with warm-up, weight decay 0.05 on kernels only, gradient clipping",
        f"{PROGRAM_P} {SCHEDULE}",
    ),
    "ema": ("+ moving average of the weights", f"{PROGRAM_P} {SCHEDULE} {EMA}"),
    "smoothing": ("+ label smoothing 0.05", f"{PROGRAM_P} {SCHEDULE} {EMA} {SMOOTHING}"),
    "augmentation": ("+ augmentation", f"{PROGRAM_P} {SCHEDULE} {EMA} {SMOOTHING} {AUGMENTATION}"),
    "batch": (
        "+ batches of 128 instead of 256, highest learning rate 1.5e-3",
        f"{PROGRAM_P} {SCHEDULE} {EMA} {SMOOTHING} {AUGMENTATION} --batch-size 128 --learning-rate 1.5e-3",
    ),
    "patches": (
        "+ 4x4 patches, 6 narrower blocks as in the published ViT, mean of the tokens; no dropout, no hidden layers in "
        "the head",
        f"{NARROW} {AS_PUBLISHED} --override head=mean",
    ),
    "pooling": ("+ attention pooling instead of the mean", f"{NARROW} {AS_PUBLISHED} --override head=sequence"),
    "flatten": ("+ all tokens, flattened, instead of the pooling", f"{NARROW} {AS_PUBLISHED}"),
    "locality": ("+ 8 heads of size 16 that look at their neighbours at first", NARROW),
    "pure": (
        "+ shifted patches, dropout, stochastic depth, more images: `vit_mnist_pure`",
        f"--preset vit_mnist_pure --recipe pure {EMA}",
    ),
    "hybrid": (
        "convolutional stem, 2 blocks of width 96, dropout, stochastic depth, learning rate 2e-3: `vit_mnist_hybrid`",
        f"--preset vit_mnist_hybrid --recipe hybrid {EMA}",
    ),
    "cnn": (
        "for comparison: `cnn_mnist`, the hybrid's recipe",
        f"--preset cnn_mnist --recipe cnn-augmented {EMA}",
    ),
}


class Result(NamedTuple):
    """Of one row: a value per seed."""

    row: str
    parameters: int
    test_images: int
    accuracies: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def standard_error(self) -> float:
        """From the number of test images alone, of one run: the images are the same for every seed."""
        return math.sqrt(self.mean * (1 - self.mean) / self.test_images)


def command(row: str, epochs: int, seed: int) -> list[str]:
    return ["keras-vit-edu", "train", *ROWS[row][1].split(), "--epochs", str(epochs), "--seed", str(seed)]


def run(row: str, epochs: int, seed: int, folder: Path, data: str | None) -> Result:
    """Train a row with one seed and test it, as far as that is not done."""
    record, tested, expected = folder / "run.json", folder / "mnist", command(row, epochs, seed)[1:]
    if not (record.is_file() and json.loads(record.read_text())["status"] == "finished"):
        call(*command(row, epochs, seed), "--run", str(folder))
    if not (tested / "evaluate.json").is_file():
        data_of_test = ["--data", data] if data else []
        call("keras-vit-edu", "evaluate", str(folder), "--dataset", "mnist", *data_of_test, "--out", str(tested))
    found, said = json.loads((tested / "evaluate.json").read_text()), json.loads(record.read_text())
    if said["command"][1 : 1 + len(expected)] != expected:
        print(f"{folder} comes from another command than the row's: {shlex.join(said['command'])}")
    return Result(row, said["parameters"], found["images"], [found["accuracy"]])


def call(program: str, *arguments: str) -> None:
    print(f"\n$ {shlex.join((program, *arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", "keras_vit_edu", *arguments], check=True)


def table(results: Sequence[Result]) -> str:
    """In Markdown."""
    lines = ["| row | what | parameters | test accuracy | wrong of 10,000 |", "|---|---|---|---|---|"]
    for result in results:
        seeds = f", {len(result.accuracies)} seeds" if len(result.accuracies) > 1 else ""
        accuracy = f"{result.mean:.2%} ± {100 * result.standard_error:.2f}{seeds}"
        wrong = 10_000 * (1 - result.mean)
        lines.append(f"| `{result.row}` | {ROWS[result.row][0]} | {result.parameters:,} | {accuracy} | {wrong:.0f} |")
    return "\n".join(lines)


def draw(results: Sequence[Result], epochs: int, file: Path) -> None:
    """Errors, a bar a row, one standard error beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 * len(results) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    labels = [result.row for result in results]
    errors = [100 * (1 - result.mean) for result in results]
    spread = [100 * result.standard_error for result in results]
    axes.barh(labels, errors, xerr=spread, color="tab:blue", alpha=0.75, ecolor="black", capsize=3)
    for place, (error, width) in enumerate(zip(errors, spread, strict=True)):
        axes.text(error + width, place, f"  {error:.2f} %", va="center")
    axes.invert_yaxis()
    axes.set(xlabel=f"% of the test images wrong, after {epochs} epochs of 10,000 images", xlim=(0, 1.25 * max(errors)))
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="npz file or folder with MNIST, for the test; else what `evaluate` finds")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--out", type=Path, required=True, help="folder of run folders")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    results = []
    for row in arguments.rows:
        runs = [
            run(row, arguments.epochs, seed, arguments.out / f"{row}-{seed}", arguments.data)
            for seed in arguments.seeds
        ]
        results.append(runs[0]._replace(accuracies=[accuracy for one in runs for accuracy in one.accuracies]))
    for row in arguments.rows:
        print(f"{row}: {shlex.join(command(row, arguments.epochs, arguments.seeds[0]))}")
    print(f"\n{table(results)}")
    if arguments.picture:
        draw(results, arguments.epochs, arguments.picture)


if __name__ == "__main__":
    main()
