"""Standard checks of files, training and resuming."""

import shutil
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from rich.console import Console

from keras_vit_edu import datasets, random, training
from keras_vit_edu.datasets import Batches
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.parity.arrays import load_arrays, save_arrays
from keras_vit_edu.parity.checks import Measurement, Scene, check
from keras_vit_edu.parity.compare import EQUAL_BITS, Tolerance
from keras_vit_edu.parity.drawn import draw_weights, drawn, program_p, relative_path
from keras_vit_edu.parity.layer_checks import LOGITS

LOSSES = Tolerance("absolute", 1e-4)


# Files. ---------------------------------------------------------------------------------------------------------------


def _small_classifier() -> ViTClassifier:
    random.set_seed(0)
    sizes = {"projection_dim": 8, "num_layers": 1, "num_heads": 2, "key_dim": 4, "mlp_dim": 12, "num_prefix_tokens": 1}
    return ViTClassifier.from_config({**sizes, "head": "token", "head_units": (6,), "name": "small"})


def _write_model(scene: Scene) -> None:
    model = _small_classifier()
    draw_weights(model)
    images = drawn("images", (4, 28, 28, 1))
    for _ in range(2):  # so that the dropouts' counters are not 0
        model(images, training=True)
    training.save_uncompiled(model, scene.folder / "model.keras")
    weights = {f"weights/{i}": ops.convert_to_numpy(weight) for i, weight in enumerate(model.weights)}
    calls = {
        "logits": ops.convert_to_numpy(model(images)),
        "training": ops.convert_to_numpy(model(images, training=True)),
    }
    save_arrays(scene.folder / "numbers.npz", {**weights, **calls})


@check("save-load", {"weights": EQUAL_BITS, "logits": LOGITS, "next training call": LOGITS}, prepare=_write_model)
def save_and_load(scene: Scene) -> Iterator[Measurement]:
    """A .keras file of every backend, loaded: its weights, its logits, its next dropout masks."""
    images = drawn("images", (4, 28, 28, 1))
    for writer, folder in scene.prepared.items():
        model = keras.saving.load_model(folder / "model.keras")
        written = load_arrays(folder / "numbers.npz")
        for i, weight in enumerate(model.weights):
            name = f"{relative_path(model, weight)} from {writer}"
            yield Measurement("weights", name, ops.convert_to_numpy(weight), written[f"weights/{i}"])
        yield Measurement("logits", f"from {writer}", ops.convert_to_numpy(model(images)), written["logits"])
        again = ops.convert_to_numpy(model(images, training=True))
        yield Measurement("next training call", f"from {writer}", again, written["training"])


# Training. ------------------------------------------------------------------------------------------------------------


@check("training", {"loss of each step": LOSSES})
def program_p_trains(scene: Scene) -> Iterator[Measurement]:
    """Program P trains on the bundled sample with dropout: 200 steps of 256 images; quick: 40 of 32."""
    steps, batch_size = (200, 256) if scene.suite == "full" else (40, 32)
    sample = datasets.load("mnist-sample")
    loader = Batches(sample.x_train, sample.y_train, batch_size, seed=0)
    model = program_p()
    model.compile(
        optimizer=training.Recipe().build_optimizer(model, len(loader)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = []
    for step in range(steps):
        loader.epoch, batch = divmod(step, len(loader))
        losses.append(float(model.train_on_batch(*loader[batch])))
    yield Measurement("loss of each step", f"{steps} steps of {batch_size}", np.array(losses, "float32"))


EPOCHS = 3


class _Interruption(keras.callbacks.Callback):
    """Ends a run after the checkpoint of its first epoch, as Ctrl-C does."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise KeyboardInterrupt


def _train_small(folder: Any, callbacks: Any = ()) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Train, or go on with, a small run; its weights and dropout counters, and its losses by epoch."""
    sample = datasets.load("mnist-sample")
    images = datasets.ImageDataset(
        "part", "the package", sample.x_train[:400], sample.y_train[:400], sample.x_test[:50], sample.y_test[:50],
        sample.class_names,
    )  # fmt: skip
    model = _small_classifier()
    recipe = training.Recipe(epochs=EPOCHS, batch_size=60, ema=0.9, schedule="cosine")
    with training.RunFolder(folder) as run:
        training.train(model, images, run, recipe, Console(quiet=True), callbacks)
        history = np.genfromtxt(run / "history.csv", delimiter=",", names=True)
    state = {f"{i} {variable.name}": ops.convert_to_numpy(variable) for i, variable in enumerate(model.variables)}
    return state, {name: history[name].astype("float32") for name in ("loss", "val_loss")}


def _interrupt_a_run(scene: Scene) -> None:
    try:
        _train_small(scene.folder / "run", [_Interruption()])
    except KeyboardInterrupt:
        return
    raise RuntimeError("the run was not interrupted")


@check("resume", {"weights, same backend": EQUAL_BITS, "losses": LOSSES}, prepare=_interrupt_a_run)
def interrupted_and_resumed(scene: Scene) -> Iterator[Measurement]:
    """A run that is interrupted on each backend and resumed on this one, beside an uninterrupted one."""
    expected_state, expected_losses = _train_small(scene.folder / "uninterrupted")
    for begun_on, folder in scene.prepared.items():
        mine = scene.folder / f"begun on {begun_on}"
        shutil.copytree(folder / "run", mine)
        state, losses = _train_small(mine)
        if begun_on == scene.backend:
            for name, values in state.items():
                yield Measurement("weights, same backend", name, values, expected_state[name])
        for name, values in losses.items():
            yield Measurement("losses", f"{name}, begun on {begun_on}", values, expected_losses[name])
