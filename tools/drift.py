"""Train Program P on each backend from one seed, and draw how far their losses are apart, step by step.

    python tools/drift.py --data MNIST.NPZ --epochs 5 --out FOLDER --picture docs/images/drift.png

One process a backend, one after the other, each in the Python that `--python BACKEND=PATH` names (this one, if none is
named). Writes `FOLDER/<backend>.npz` with the loss of every step, as `train_on_batch` returns it; one that is there
already is taken as it is. Prints the largest difference between any two backends in each epoch.
"""

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

BACKENDS = ("tensorflow", "torch", "jax")


def losses(data: str, epochs: int, seed: int) -> np.ndarray:
    """Loss of every step of Program P with its own recipe; `(epochs, steps)`."""
    import keras_vit_edu  # chooses the backend, so it comes before Keras # noqa: F401, I001
    import keras
    from keras_vit_edu import datasets, training
    from keras_vit_edu.models import ViTClassifier

    recipe = training.Recipe(epochs=epochs, seed=seed)
    (images, labels), _ = datasets.split(datasets.load("mnist", data), recipe.validation_split)
    batches = datasets.Batches(images, labels, recipe.batch_size, seed=seed)
    keras.utils.set_random_seed(seed)
    model = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
    model.compile(
        recipe.build_optimizer(model, len(batches)), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    table = np.zeros((epochs, len(batches)))
    for epoch in range(epochs):
        batches.epoch = epoch
        for step in range(len(batches)):
            table[epoch, step] = float(model.train_on_batch(*batches[step]))
        print(f"{keras.backend.backend()}: epoch {epoch + 1}, mean loss {table[epoch].mean():.6f}", flush=True)
    return table


def draw(tables: dict[str, np.ndarray], file: Path) -> None:
    """The losses, and beneath them the differences of each pair, over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
    for name, table in tables.items():
        above.plot(table.ravel(), linewidth=0.8, alpha=0.7, label=name)
    for (name, table), (other, of_other) in itertools.combinations(tables.items(), 2):
        below.semilogy(np.abs(table - of_other).ravel() + 1e-9, linewidth=0.7, alpha=0.8, label=f"{name} - {other}")
    epochs, steps = next(iter(tables.values())).shape
    for axes in (above, below):
        for epoch in range(1, epochs):
            axes.axvline(epoch * steps, color="grey", linewidth=0.5)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right" if axes is above else "lower right")
    above.set(title="Program P, dropout on, one seed: training loss of every step", ylabel="loss", yscale="log")
    below.set(xlabel=f"step ({steps} an epoch)", ylabel="difference of the loss")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="BACKEND=PATH")
    parser.add_argument("--only", choices=BACKENDS, help=argparse.SUPPRESS)  # what each process is started with
    arguments = parser.parse_args()
    if arguments.only:
        table = losses(arguments.data, arguments.epochs, arguments.seed)
        np.savez(arguments.out / f"{arguments.only}.npz", losses=table)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    pythons = dict(entry.split("=", 1) for entry in arguments.python)
    for backend in BACKENDS:
        if not (arguments.out / f"{backend}.npz").is_file():
            command = [pythons.get(backend, sys.executable), *sys.argv, "--only", backend]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
    tables = {backend: np.load(arguments.out / f"{backend}.npz")["losses"] for backend in BACKENDS}
    for epoch in range(arguments.epochs):
        apart = [np.abs(a[epoch] - b[epoch]).max() for a, b in itertools.combinations(tables.values(), 2)]
        print(f"epoch {epoch + 1}: the losses of a step differ by at most {max(apart):.1e}")
    if arguments.picture:
        draw(tables, arguments.picture)


if __name__ == "__main__":
    main()
