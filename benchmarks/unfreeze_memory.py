"""Peak memory of fine-tuning ViT-B/16 at 224 x 224, batch 8: its last 2 blocks, against all of it.

Each in a fresh process: how far it grows from the moment when everything is imported, by the model itself, what the
optimizer keeps, and 3 steps.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from benchmarks import memory

BATCH, CLASSES, STEPS = 8, 5, 3
BLOCKS = {"all of it": None, "the last 2 blocks": 2, "the head": 0}


def run(rounds: int) -> dict[str, float]:
    """MiB by what trains; the largest of the rounds."""
    return {
        title: max(
            memory.in_a_fresh_process("benchmarks.unfreeze_memory", blocks=blocks)["growth"] for _ in range(rounds)
        )
        for title, blocks in BLOCKS.items()
    }


def measure(blocks: int | None) -> dict[str, Any]:
    """The growth of this process."""
    from keras_vit_edu.models import ViTBackbone, ViTClassifier
    from keras_vit_edu.transfer import unfreeze_last

    sizes = {"projection_dim": 768, "num_layers": 12, "num_heads": 12, "key_dim": 64, "mlp_dim": 3072}
    images = np.random.default_rng(0).random((BATCH, 224, 224, 3), "float32")
    labels = np.arange(BATCH) % CLASSES
    before = memory.resident()
    memory.forget_the_peak()
    backbone = ViTBackbone((224, 224, 3), 16, num_prefix_tokens=1, **sizes)
    model = ViTClassifier(backbone, CLASSES, head="token", head_units=(), head_dropout=0.0)
    if blocks is not None:
        unfreeze_last(model, blocks)
    model.compile(keras.optimizers.AdamW(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(STEPS):
        model.train_on_batch(images, labels)
    return {"growth": memory.peak() - before}


def show(measured: Mapping[str, float]) -> None:
    """Print a table."""
    whole = measured["all of it"]
    print(f"\n{'fine-tuning ViT-B/16, batch 8':40}{'growth, MiB':>14}{'ratio':>8}")
    for title, growth in measured.items():
        print(f"  {title:38}{growth:14.0f}{growth / whole:8.2f}")
