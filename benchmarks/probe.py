"""A linear probe of DeiT-Ti/16, 10 epochs, 500 images of 224 x 224: features computed once, against keras_hub's `fit`.

Theirs is the classifier with a frozen backbone, compiled and trained on the same images, which it runs through the
backbone in every epoch. Ours begins with an empty cache in every round. Both compile anew in every round, as whoever
trains once does.
"""

import tempfile

import keras
import numpy as np
from rich.console import Console

from benchmarks import hub_models
from benchmarks.timing import Timing, compare
from keras_vit_edu.transfer import FineTuning

IMAGES, CLASSES, EPOCHS, BATCH = 500, 5, 10, 32
THEIRS = "keras_hub, backbone frozen"


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """The comparison, by its title and clock."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, hub_models.SIDE, hub_models.SIDE, 3), "uint8")
    labels = (np.arange(IMAGES) % CLASSES).astype("int32")
    theirs = hub_models.keras_hubs("DeiT-Ti/16", CLASSES)
    ours = hub_models.opened(theirs)
    options = FineTuning(method="probe", probe_epochs=EPOCHS, batch_size=BATCH, validation_split=0.0)

    def fit() -> None:
        theirs.backbone.trainable = False
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        theirs.compile(keras.optimizers.AdamW(1e-2), loss, metrics=["accuracy"])
        theirs.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)

    def probe() -> None:
        with tempfile.TemporaryDirectory() as cache:
            ours.fit((images, labels), options=options, cache=cache, console=Console(quiet=True))

    return {"linear probe": compare({THEIRS: fit, "ours": probe}, THEIRS, rounds, warm_up=0)}
