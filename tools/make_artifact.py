"""Make the artifact that tests load to see that a format, once written, stays readable, and its logits beside it.

    python tools/make_artifact.py tests/transfer/artifact_v1.zip

Only ever run for a new format: the file of an old one is what must not change.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.transfer import Preprocessing, TransferClassifier


def small_classifier() -> TransferClassifier:
    """A ViT with every weight random and none 0 or 1, and a preprocessing with none of the defaults."""
    backbone = ViTBackbone(
        (32, 24, 3), 8, 12, num_layers=2, num_heads=3, key_dim=4, mlp_dim=20, num_prefix_tokens=2, dropout=0.1
    )
    head = {"head": "token", "head_units": (7,), "head_dropout": (0.0, 0.2), "head_activation": "tanh"}
    model = ViTClassifier(backbone, 3, **head)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, weight.shape).astype("float32") for weight in model.get_weights()])
    preprocessing = Preprocessing(
        (32, 24), False, True, "bicubic", antialias=True, scale=(0.017, 0.018, 0.019), offset=(-2.1, -2.0, -1.8)
    )
    return TransferClassifier(
        model, preprocessing, ["Äpfel", "pear", "梨"], {"preset": "none, random weights"}, {"accuracy": 0.5}
    )


def main(file: Path) -> None:
    classifier = small_classifier()
    classifier.save(file)
    images = np.random.default_rng(1).integers(0, 256, (4, 30, 40, 3), "uint8")
    logits = classifier.model(classifier.preprocess(images), training=False)
    np.savez(file.with_suffix(".npz"), images=images, logits=keras.ops.convert_to_numpy(logits))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
