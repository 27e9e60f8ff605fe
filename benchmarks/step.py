"""A training step of Program P, batch 256: ours against the handout's program, Keras's layers, plain PyTorch and JAX.

All start from the same weights and must give the same logits before they are timed. The Keras models are trained by
`train_on_batch`; every step is waited for, its loss fetched. PyTorch and JAX are timed where they are installed: with
`--backend jax`, in an environment that has both, ours on JAX meets them in one run. On TensorFlow ours and the
handout's are timed once more with XLA, which Keras does not choose by itself on a CPU.
"""

from collections.abc import Callable
from functools import partial
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

    def __init__(self, xla: bool = False) -> None:
        keras.utils.set_random_seed(0)
        super().__init__(ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False), xla)

    def weights(self) -> dict[str, np.ndarray]:
        """By path, without the names of the classifier and of the backbone in it."""
        return {
            variable.path.removeprefix(f"{self.model.name}/").removeprefix("backbone/"): np.array(variable.numpy())
            for variable in self.model.trainable_variables
        }


def others() -> dict[str, Callable[[dict[str, np.ndarray]], Any]]:
    """The programs that can run beside ours in this environment: by name, what makes each from our weights."""
    makers: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {"keras layers": WithKeras}
    if keras.backend.backend() == "tensorflow":
        makers["handout"] = partial(WithKeras, as_in_the_handout=True)
    if find_spec("torch"):
        from benchmarks.baselines.plain_torch import PlainTorch

        makers["plain torch"] = PlainTorch
    if find_spec("jax"):
        from benchmarks.baselines.plain_jax import PlainJax

        makers["plain jax"] = PlainJax
    return makers


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of MNIST's shape."""
    rng = np.random.default_rng(0)
    return rng.random((BATCH, 28, 28, 1), "float32"), rng.integers(0, 10, BATCH).astype("int32")


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """Every comparison, by its title and clock."""
    ours = Ours()
    programs = {name: make(ours.weights()) for name, make in others().items()}
    images, labels = batch()
    expected = ours.logits(images)
    for name, other in programs.items():
        difference = np.abs(other.logits(images) - expected).max() / np.abs(expected).max()
        if other.parameters() != ours.parameters() or not difference <= AGREE:
            raise RuntimeError(f"{name} computes something else: logits differ by {difference:.1e} of the largest")
    comparisons = {
        f"training step, against {name}": compare(
            {name: _step(other, images, labels), "ours": _step(ours, images, labels)}, name, rounds
        )
        for name, other in programs.items()
    }
    if "handout" in programs:
        with_xla = {
            "handout": programs["handout"],
            "handout, XLA": WithKeras(ours.weights(), as_in_the_handout=True, xla=True),
            "ours, XLA": Ours(xla=True),
        }
        steps = {name: _step(program, images, labels) for name, program in with_xla.items()}
        comparisons["training step with XLA"] = compare(steps, "handout", rounds)
    return comparisons


def _step(program: Any, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    return lambda: program.step(images, labels)
