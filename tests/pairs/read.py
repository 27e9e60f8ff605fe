"""Read what another backend wrote, and report as JSON how far the numbers are from the writer's.

    python tests/pairs/read.py FOLDER...

Started by `check_pairs.py` as a fresh process, in an environment that has one backend. It knows nothing of the models
but what their files say: `keras_vit_edu` is imported, and no `custom_objects` are given.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_vit_edu  # chooses the backend, so it comes before Keras # isort: skip
import keras
import numpy as np
from keras import ops

from keras_vit_edu._backend import installed_backends
from keras_vit_edu.models import ViTClassifier


def compile_for_training(model: keras.Model) -> None:
    """As the writer does."""
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """The losses of three steps of `fit`, the whole batch in each."""
    if keras.backend.backend() != "jax":  # to compile this model takes longer than to run it
        model.run_eagerly, model.jit_compile = True, False
    return model.fit(images, labels, batch_size=len(images), epochs=3, shuffle=False, verbose=0).history["loss"]


def difference(actual: Any, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest expected value."""
    actual = np.asarray(ops.convert_to_numpy(actual), "float64")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def attempt(act: Callable[[], Any]) -> tuple[Any, str]:
    """What `act` gives, and "fine"; or None, and the error's name and first line."""
    try:
        return act(), "fine"
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def report(folder: Path) -> dict[str, Any]:
    """Everything in one writer's folder."""
    written = np.load(folder / "numbers.npz")
    images, labels = written["images"], written["labels"]
    found: dict[str, Any] = {}

    model = keras.saving.load_model(folder / "uncompiled.keras")
    found["logits"] = difference(model(images), written["logits"])
    found["next_training_call"] = difference(model(images, training=True), written["next_training_call"])
    compile_for_training(model)
    found["losses"] = difference(train(model, images, labels), written["losses"])

    model = keras.models.model_from_json((folder / "model.json").read_text())
    found["logits_before_load_weights"] = difference(model(images), written["logits"])
    model.load_weights(folder / "model.weights.h5")
    found["logits_after_load_weights"] = difference(model(images), written["logits"])
    found["next_training_call_after_load_weights"] = difference(
        model(images, training=True), written["next_training_call"]
    )

    preset = ViTClassifier.from_preset(folder / "preset")
    found["preset_logits"] = difference(preset(images), written["preset_logits"])

    model, found["compiled"] = attempt(lambda: keras.saving.load_model(folder / "compiled.keras"))
    if model is not None:
        found["compiled_logits"] = difference(model(images), written["compiled_logits"])
        losses, found["compiled_training"] = attempt(lambda: train(model, images, labels))
        found["compiled_losses"] = None if losses is None else difference(losses, written["compiled_losses"])
    model = keras.saving.load_model(folder / "compiled.keras", compile=False)
    found["compile_false_logits"] = difference(model(images), written["compiled_logits"])
    return found


def main(folders: list[str]) -> None:
    print(
        json.dumps(
            {
                "backend": keras.backend.backend(),
                "installed": installed_backends(),
                "version": keras_vit_edu.__version__,
                "reports": {Path(folder).name: report(Path(folder)) for folder in folders},
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
