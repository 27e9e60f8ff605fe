"""`explain`: one door to all methods that say where a model looked."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks
from keras_vit_edu._types import Images
from keras_vit_edu.explain._head import read_by_head
from keras_vit_edu.explain.grad_cam import grad_cam
from keras_vit_edu.explain.inside import Grid, Inside, checked_images, is_channels_first, look_inside
from keras_vit_edu.explain.integrated_gradients import integrated_gradients
from keras_vit_edu.explain.occlusion import occlusion
from keras_vit_edu.explain.relevance import relevance
from keras_vit_edu.explain.rollout import Heads, rollout
from keras_vit_edu.explain.targets import Classes, target_rows
from keras_vit_edu.transfer import TransferClassifier


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a model looked, or what spoke for a class.

    Attributes:
        method: name of the method.
        map: float64; `(B, rows, columns)` for patches, `(B, H, W)` for pixels.
        images: the images as the model takes them, float32.
        output: the model's output, `(B, num_classes)` for a classifier.
        target: int `(B,)`, the class that is explained; None for a method that knows no class, or without classes.
        against: int `(B,)`, the class that it is compared with; None without.
        grid: where the tokens lie in the image.
    """

    method: str
    map: np.ndarray
    images: np.ndarray
    output: np.ndarray
    target: np.ndarray | None
    against: np.ndarray | None
    grid: Grid


def explain(
    model: keras.Model | TransferClassifier,
    images: Images,
    method: str = "relevance",
    target: Classes | None = None,
    against: Classes | None = None,
    **options: Any,
) -> Explanation:
    """Show where a model looked.

    Args:
        model: a `TransferClassifier`, or any Keras model in which layers of this library are found.
        images: for a `TransferClassifier` raw images or files; else as the model takes them, `(B, H, W, C)`.
        method: which one:
            - `"attention"`: the attention of one block (options `block`, `head`; by default the last, all heads);
            - `"rollout"`: attention through all blocks (options `heads`, `discard`);
            - `"relevance"`: gradient times attention through all blocks;
            - `"grad_cam"`: tokens that point to where the logit grows (option `block`);
            - `"integrated_gradients"`: of the pixels (options `baseline`, `steps`);
            - `"occlusion"`: what the logit loses without a patch (options `without`, `value`).

            `"attention"` and `"rollout"` do not know of classes.
        target: index of a class, or one for each image. Defaults to the class with the largest logit.
        against: index of a class to compare with: why `target` and not this one.
        **options: of the method.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: if there is no such method or option, a class is out of range, the images do not fit, or the model
            has no attention that can be shown.

    Examples:
        >>> from keras_vit_edu import datasets
        >>> from keras_vit_edu.models import ViTClassifier
        >>> digits = datasets.load("mnist-sample").x_test[:2] / 255
        >>> explanation = explain(ViTClassifier.from_preset("vit_mnist_pure"), digits, "rollout")
        >>> explanation.map.shape, explanation.map.sum(axis=(1, 2)).round(6).tolist()
        ((2, 7, 7), [1.0, 1.0])
    """
    if method not in METHODS:
        hint = _checks.did_you_mean(str(method), list(METHODS)) or f"There are {', '.join(METHODS)}."
        raise ValueError(f"There is no method {method!r}. {hint}")
    if isinstance(model, TransferClassifier):
        images, model = model.preprocess(images), model.model
    images = checked_images(model, images)
    act = METHODS[method]
    known = [name for name in inspect.signature(act).parameters if name not in COMMON]
    for name in options:
        if name not in known:
            raise ValueError(f"The method {method} has no option `{name}`. It has: {', '.join(known) or 'none'}.")
    inside = look_inside(model, images)
    of_a_class = knows_classes(method)
    if not of_a_class and (target is not None or against is not None):
        raise ValueError(f"The method {method} does not know of classes: leave out `target` and `against`.")
    of_class = {"target": target, "against": against} if of_a_class else {}
    found = act(model=model, images=images, inside=inside, **of_class, **options)
    rows = target_rows(inside.output, target, against) if of_a_class else None
    return Explanation(
        method,
        found,
        images,
        inside.output,
        None if rows is None else rows.argmax(axis=1),
        None if rows is None or against is None else rows.argmin(axis=1),
        inside.grid,
    )


def knows_classes(method: str) -> bool:
    """Whether a method explains a class."""
    return "target" in inspect.signature(METHODS[method]).parameters


def _attention(model: Any, images: Any, inside: Inside, block: int = -1, head: int | None = None) -> np.ndarray:
    scores = _chosen("block", block, inside.scores)  # (B, h, T, T)
    of_block = scores.mean(axis=1) if head is None else _chosen("head", head, scores.swapaxes(0, 1))
    return _seen_by_head(model, inside, of_block.astype("float64"))


def _chosen(name: str, place: Any, entries: Any) -> Any:
    if isinstance(place, bool) or not isinstance(place, (int, np.integer)) or not -len(entries) <= place < len(entries):
        raise ValueError(f"`{name}` must be 0 to {len(entries) - 1}. Received: {name}={place!r}")
    return entries[place]


def _rollout(model: Any, images: Any, inside: Inside, heads: Heads = "mean", discard: float = 0.0) -> np.ndarray:
    return _seen_by_head(model, inside, rollout(inside.scores, heads, discard))


def _seen_by_head(model: Any, inside: Inside, mixing: np.ndarray) -> np.ndarray:
    """Shares of the patches in what the head reads, `(B, rows, columns)`; they sum to 1."""
    seen = np.einsum("bt,bts->bs", read_by_head(model, inside), mixing)[:, inside.grid.num_prefix_tokens :]
    return inside.grid.as_map(seen / np.maximum(seen.sum(axis=1, keepdims=True), np.finfo("float64").tiny))


def _integrated_gradients(
    model: Any,
    images: Any,
    inside: Inside,
    target: Any,
    against: Any,
    baseline: float | np.ndarray = 0.0,
    steps: int = 300,
) -> np.ndarray:
    of_values = integrated_gradients(model, images, target, against, baseline, steps)
    return of_values.sum(axis=1 if is_channels_first(model) else 3)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "attention": _attention,
    "rollout": _rollout,
    "relevance": relevance,
    "grad_cam": grad_cam,
    "integrated_gradients": _integrated_gradients,
    "occlusion": occlusion,
}
COMMON = ("model", "images", "inside", "target", "against")
