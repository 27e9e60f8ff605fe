"""The logit lens: what the head would say after each block.

nostalgebraist, "Interpreting GPT: the logit lens" (2020); for ViTs Vilas et al., "Analyzing vision transformers for
image classification in class embedding space" (NeurIPS 2023), arXiv 2310.18969. The tokens after a block go through the
last normalisation and the head, as if the blocks above were not there.
"""

import keras
import numpy as np

from keras_vit_edu._types import Tensor
from keras_vit_edu.explain._head import head_model
from keras_vit_edu.explain._run import run
from keras_vit_edu.explain.inside import Inside, look_inside


def logit_lens(model: keras.Model, images: np.ndarray, inside: Inside | None = None) -> np.ndarray:
    """The head applied before the first block and after each.

    Args:
        model: a `ViTClassifier`.
        images: as the model takes them, `(B, H, W, C)`.
        inside: result of `look_inside` for these images, if it is there already.

    Returns:
        float32 `(B, num_blocks + 1, num_classes)`; the last are the logits of the model.

    Raises:
        ValueError: if the model is another, or as `look_inside`.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> logit_lens(ViTClassifier.from_preset("vit_mnist_pure"), np.zeros((1, 28, 28, 1), "float32")).shape
        (1, 7, 10)
    """
    head = head_model(model, "The logit lens")
    inside = look_inside(model, images) if inside is None else inside
    backbone = model.backbone  # type: ignore[attr-defined]

    def logits(tokens: Tensor) -> Tensor:
        return head(backbone.get_layer("encoder_norm")(tokens), training=False)

    return np.stack([run(model, logits, [tokens], key="logit_lens") for tokens in inside.tokens], axis=1)
