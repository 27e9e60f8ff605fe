"""Make the sample of MNIST that the package bundles, from all of MNIST.

    python tools/make_mnist_sample.py MNIST.NPZ

10,000 training and 2,000 test images, each class with its share of the whole set, in their original order. Which ones
is drawn with a fixed seed, so the same file comes out every time.
"""

import sys
from pathlib import Path

import numpy as np

SAMPLE = Path(__file__).parents[1] / "src/keras_vit_edu/datasets/mnist_sample.npz"
SIZES = {"train": 10_000, "test": 2_000}


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Sorted indices of `size` examples; the classes keep their shares, by largest remainder."""
    shares = np.bincount(labels) * size / len(labels)
    counts = shares.astype(int)
    counts[np.argsort(counts - shares)[: size - counts.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.flatnonzero(labels == label), count, replace=False) for label, count in enumerate(counts)]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    arrays = {}
    with np.load(sys.argv[1]) as mnist:
        for part, size in SIZES.items():
            chosen = stratified(mnist[f"y_{part}"], size, seed=0)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = mnist[f"x_{part}"][chosen], mnist[f"y_{part}"][chosen]
    np.savez_compressed(SAMPLE, **arrays)
    print(f"{SAMPLE}: {SAMPLE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
