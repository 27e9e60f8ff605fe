"""DeiT-Ti/16 and ViT-S/16 at inference, batch 8 of 224 x 224: opened into our layers, against keras_hub's own.

Both have the same weights and must give the same logits before they are timed. Each is called on a tensor (compiled on
TensorFlow and JAX) and through `predict_on_batch`.
"""

import numpy as np

from benchmarks import hub_models
from benchmarks.inference import called
from benchmarks.timing import Timing, compare

BATCH = 8
THEIRS = "keras_hub"


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """Every comparison, by its title and clock."""
    comparisons = {}
    images = np.random.default_rng(0).random((BATCH, hub_models.SIDE, hub_models.SIDE, 3), "float32")
    for name in ("DeiT-Ti/16", "ViT-S/16"):
        theirs = hub_models.keras_hubs(name, preprocess=False)
        ours = hub_models.opened(theirs).model
        if not all(layer.built for layer in theirs._flatten_layers()):
            raise RuntimeError(f"{name}: a layer of keras_hub's is not built, and Keras would build it at every call")
        comparisons[f"{name}, called"] = compare(
            {THEIRS: called(theirs, images), "ours": called(ours, images)}, THEIRS, rounds
        )
        comparisons[f"{name}, predict_on_batch"] = compare(
            {
                THEIRS: lambda m=theirs: m.predict_on_batch(images),
                "ours": lambda m=ours: m.predict_on_batch(images),
            },
            THEIRS,
            rounds,
        )
    return comparisons
