"""A training step of Program P, batch 256: ours against the handout's program, Keras's layers, plain PyTorch and JAX.

All start from the same weights and must give the same logits before they are timed. The Keras models are trained by
`train_on_batch`; every step is waited for, its loss fetched. PyTorch and JAX are timed where they are installed: with
`--backend jax`, in an environment that has both, ours on JAX meets them in one run.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from benchmarks.baselines.with_keras import OnBatches, WithKeras
from benchmarks.timing import Timing, compare
from keras_vit_edu.models import ViTClassifier

BATCH = 256
AGREE = 1e-5  # of the largest logit


class Ours(OnBatches):
    """`vit_mnist_program_p`, compiled and trained as the handout compiles and trains its own."""

    def __init__(self) -> None:
        keras.utils.set_random_seed(0)
        super().__init__(ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False))

    def weights(self) -> dict[str, np.ndarray]:
        """By path, without the names of the classifier and of the backbone in it."""
        return {
            variable.path.removeprefix(f"{self.model.name}/").removeprefix("backbone/"): np.array(variable.numpy())
            for variable in self.model.trainable_variables
        }


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """Every comparison, by its title and clock."""
    ours = Ours()
    weights = ours.weights()
    others: dict[str, Any] = {"keras layers": WithKeras(weights)}
    if keras.backend.backend() == "tensorflow":
        others["handout"] = WithKeras(weights, as_in_the_handout=True)
    if find_spec("torch"):
        from benchmarks.baselines.plain_torch import PlainTorch

        others["plain torch"] = PlainTorch(weights)
    if find_spec("jax"):
        from benchmarks.baselines.plain_jax import PlainJax

        others["plain jax"] = PlainJax(weights)

    rng = np.random.default_rng(0)
    images = rng.random((BATCH, 28, 28, 1), "float32")
    labels = rng.integers(0, 10, BATCH).astype("int32")
    expected = ours.logits(images)
    for name, other in others.items():
        difference = np.abs(other.logits(images) - expected).max() / np.abs(expected).max()
        if other.parameters() != ours.parameters() or difference > AGREE:
            raise RuntimeError(f"{name} computes something else: logits differ by {difference:.1e} of the largest")
    return {
        f"training step, against {name}": compare(
            {name: _step(other, images, labels), "ours": _step(ours, images, labels)}, name, rounds
        )
        for name, other in others.items()
    }


def _step(program: Any, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    return lambda: program.step(images, labels)
