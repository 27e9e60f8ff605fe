"""ViT-Ti/16 and ViT-S/16 at inference, batch 8 of 224 x 224: ours against the ViT of `transformers` in eager PyTorch.

(timm's needs torchvision, whose operators want the CUDA build of PyTorch.) Both have the same weights and must give the
same logits before they are timed. Ours is called on a tensor, and once more through `predict_on_batch`.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.timing import Timing, compare
from keras_vit_edu.models import ViTBackbone, ViTClassifier

BATCH, CLASSES, LAYERS = 8, 1000, 12
SIZES = {"ViT-Ti/16": (192, 3), "ViT-S/16": (384, 6)}  # width, heads
AGREE = 1e-5  # of the largest logit
THEIRS = "transformers"


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """Every comparison, by its title and clock."""
    comparisons = {}
    images = np.random.default_rng(0).random((BATCH, 224, 224, 3), "float32")
    for name, (width, heads) in SIZES.items():
        keras.utils.set_random_seed(0)
        backbone = ViTBackbone((224, 224, 3), 16, width, LAYERS, heads, 64, 4 * width, num_prefix_tokens=1)
        ours = ViTClassifier(backbone, CLASSES, head="token", head_units=())
        theirs = transformers_vit(ours, width, heads)
        difference = np.abs(ours.predict_on_batch(images) - theirs(images)).max() / np.abs(theirs(images)).max()
        if not difference <= AGREE:
            raise RuntimeError(f"{name}: the logits differ by {difference:.1e} of the largest")
        candidates = {THEIRS: lambda theirs=theirs: theirs(images)}
        candidates |= {
            "ours": called(ours, images),
            "ours, predict_on_batch": lambda m=ours: m.predict_on_batch(images),
        }
        comparisons[name] = compare(candidates, THEIRS, rounds)
    return comparisons


def called(model: keras.Model, images: np.ndarray) -> Callable[[], Any]:
    """The model as a function: compiled on TensorFlow and JAX, without gradients on torch."""
    if keras.backend.backend() == "torch":
        import torch

        x = torch.from_numpy(images)

        def function() -> Any:
            with torch.no_grad():
                return model(x, training=False)

        return function
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda x: model(x, training=False))
        return lambda: graph(images)
    import jax

    weights = [variable.value for variable in model.variables]

    @jax.jit
    def stateless(weights: Any, x: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(model.variables, weights, strict=True))):
            return model(x, training=False)

    return lambda: stateless(weights, images)


def transformers_vit(ours: ViTClassifier, width: int, heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The same network there, with the same weights: images `(B, H, W, C)` to logits."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=width, num_hidden_layers=LAYERS, num_attention_heads=heads, intermediate_size=4 * width,
        layer_norm_eps=1e-6, num_labels=CLASSES, image_size=224, patch_size=16,
    )  # fmt: skip
    theirs = ViTForImageClassification(config).eval()
    state = theirs.state_dict()
    for variable in ours.weights:
        path = variable.path.removeprefix(f"{ours.name}/").removeprefix("backbone/")
        array = ops.convert_to_numpy(variable)
        if path.endswith("projection/kernel"):
            array = array.reshape(16, 16, 3, width).transpose(3, 2, 0, 1)  # a patch is read row by row, pixel by pixel
        elif path.endswith("kernel"):
            array = array.T
        name = _their_name(path)
        state[name] = torch.tensor(np.reshape(array, state[name].shape))
    theirs.load_state_dict(state)

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()

    return logits


def _their_name(path: str) -> str:
    fixed = {
        "patch_encoder/prefix_tokens": "vit.embeddings.cls_token",
        "patch_encoder/position_embedding": "vit.embeddings.position_embeddings",
        "patch_encoder/projection": "vit.embeddings.patch_embeddings.projection",
        "encoder_norm": "vit.layernorm",
        "logits": "classifier",
        "attention_norm": "layernorm_before",
        "attention/q_dense": "attention.q_proj",
        "attention/k_dense": "attention.k_proj",
        "attention/v_dense": "attention.v_proj",
        "attention/out_dense": "attention.o_proj",
        "mlp_norm": "layernorm_after",
        "mlp_hidden": "mlp.fc1",
        "mlp_output": "mlp.fc2",
    }
    if path in fixed:
        return fixed[path]
    layer, _, leaf = path.rpartition("/")
    leaf = {"kernel": "weight", "gamma": "weight"}.get(leaf, "bias")
    if layer.startswith("transformer_block_"):
        number, _, part = layer.removeprefix("transformer_block_").partition("/")
        return f"vit.layers.{number}.{fixed[part]}.{leaf}"
    return f"{fixed[layer]}.{leaf}"
