"""Is an explanation any good? Tests of a map against the model, against chance, and against what is known.

- Deletion and insertion (Petsiuk, Das and Saenko, "RISE", BMVC 2018, arXiv 1806.07421): patches are taken away, or put
  back, in the order of the map. A good map makes the probability fall early, or rise early.
- SaCo (Wu et al., "On the faithfulness of vision transformer explanations", CVPR 2024, arXiv 2404.01415): patches are
  put into groups by their rank; a group with a higher sum must also have more effect.
- Model randomisation (Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv 1810.03292): the map of a
  model with random weights must be another.
- The pointing game (Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, arXiv 1608.00507): the
  highest place of the map lies on the object.

All are compared with random maps: without that a number says nothing.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks, random
from keras_vit_edu._weights import copy_variables
from keras_vit_edu.evaluation import softmax
from keras_vit_edu.explain._run import outputs
from keras_vit_edu.explain.inside import Grid, checked_images, is_channels_first
from keras_vit_edu.training.saving import copy_of_model

__all__ = [
    "Curves",
    "deletion_and_insertion",
    "map_correlation",
    "pointing_game",
    "random_areas",
    "randomised",
    "saco",
]

AT_ONCE = 50  # images in a batch
ORDERS = 21  # stream of random numbers: random orders of patches


@dataclass(frozen=True, eq=False)
class Curves:
    """What the model says while patches are taken away or put back.

    Attributes:
        deletion: float64 `(B, N + 1)`: the probability of the target after 0 to N patches are taken away, the highest
            of the map first.
        insertion: float64 `(B, N + 1)`: the same while patches are put into an empty image.
    """

    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> np.ndarray:
        """The mean height of the deletion curve of each image, 0 to 1: the lower, the better the map."""
        return _area(self.deletion)

    @property
    def insertion_area(self) -> np.ndarray:
        """The mean height of the insertion curve of each image, 0 to 1: the higher, the better the map."""
        return _area(self.insertion)


def _area(curves: np.ndarray) -> np.ndarray:
    return (curves[:, 1:] + curves[:, :-1]).mean(axis=1) / 2


def deletion_and_insertion(
    model: keras.Model, images: np.ndarray, maps: np.ndarray, target: np.ndarray, value: float = 0.0
) -> Curves:
    """Take patches away, and put them back, in the order of a map.

    Args:
        model: a classifier, from images to logits.
        images: as the model takes them, `(B, H, W, C)`.
        maps: `(B, rows, columns)`, one value for each patch.
        target: int `(B,)`, the class whose probability is followed.
        value: of the pixels of a patch that is not there.

    Returns:
        The `Curves`.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> from keras_vit_edu.explain import explain
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model, images = ViTClassifier.from_preset("vit_mnist_pure"), np.zeros((1, 28, 28, 1), "float32")
        >>> found = explain(model, images, "relevance")
        >>> deletion_and_insertion(model, images, found.map, found.target).deletion.shape
        (1, 50)
    """
    images, maps = _checked(model, images, maps)
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")  # (B, N)
    return _curves(model, images, order, maps.shape[1:], np.asarray(target), value)


def random_areas(
    model: keras.Model,
    images: np.ndarray,
    grid: Grid,
    target: np.ndarray,
    seeds: int = 5,
    value: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The areas of the deletion and insertion curves for random orders of the patches: what chance gives.

    Args:
        model: a classifier, from images to logits.
        images: as the model takes them, `(B, H, W, C)`.
        grid: where the patches lie.
        target: int `(B,)`, the class whose probability is followed.
        seeds: how many random orders, with seeds 0, 1 and so on.
        value: of the pixels of a patch that is not there.

    Returns:
        The deletion areas and the insertion areas, float64 `(seeds, B)` each.

    Raises:
        ValueError: if the shapes do not fit, or `seeds` is not a positive int.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model, images = ViTClassifier.from_preset("vit_mnist_pure"), np.zeros((1, 28, 28, 1), "float32")
        >>> deletion, insertion = random_areas(model, images, Grid(7, 7, 0), np.array([3]), seeds=2)
        >>> deletion.shape, insertion.shape
        ((2, 1), (2, 1))
    """
    images = checked_images(model, images)
    found = []
    for seed in range(_checks.positive_int("seeds", seeds)):
        u = random.uniform(seed, (ORDERS,), (len(images), grid.num_patches))
        order = np.argsort(u, axis=1, kind="stable")
        curves = _curves(model, images, order, (grid.rows, grid.columns), np.asarray(target), value)
        found.append((curves.deletion_area, curves.insertion_area))
    deletion, insertion = zip(*found, strict=True)
    return np.stack(deletion), np.stack(insertion)


def _curves(
    model: Any, images: np.ndarray, order: np.ndarray, shape: tuple[int, ...], target: np.ndarray, value: float
) -> Curves:
    count = order.shape[1]
    rank = np.argsort(order, axis=1)  # (B, N): when the patch's turn comes
    gone = rank[:, None] < np.arange(count + 1)[None, :, None]  # (B, N + 1, N)
    curves = []
    for is_there in (~gone, gone):
        rows = [
            _probabilities(model, image, of_image.reshape(-1, *shape), int(label), value)
            for image, of_image, label in zip(images, is_there, target, strict=True)
        ]
        curves.append(np.stack(rows))
    return Curves(*curves)


def _probabilities(model: Any, image: np.ndarray, is_there: np.ndarray, label: int, value: float) -> np.ndarray:
    """The probability of a class, `(n,)`, for an image with only some patches: bool `(n, rows, columns)`."""
    found = []
    for first in range(0, len(is_there), AT_ONCE):
        part = is_there[first : first + AT_ONCE]
        asked = np.resize(part, (min(AT_ONCE, len(is_there)), *part.shape[1:]))  # one constant size, compiled once
        changed = np.where(_as_pixels(asked, image, model), image, np.float32(value))
        logits = outputs(model, changed)[: len(part)].astype("float64")
        found.append(softmax(logits)[:, label])
    return np.concatenate(found)


def _as_pixels(is_there: np.ndarray, image: np.ndarray, model: Any) -> np.ndarray:
    """Patches `(n, rows, columns)` as pixels that broadcast against the image, `(n, H, W, 1)` or `(n, 1, H, W)`."""
    is_first = is_channels_first(model)
    height, width = image.shape[1:] if is_first else image.shape[:2]
    rows, columns = is_there.shape[1:]
    if height % rows or width % columns:
        raise ValueError(f"A map of {rows} x {columns} patches does not fit images of {height} x {width} pixels.")
    pixels = is_there.repeat(height // rows, axis=1).repeat(width // columns, axis=2)
    return pixels[:, None] if is_first else pixels[..., None]


def saco(
    model: keras.Model, images: np.ndarray, maps: np.ndarray, target: np.ndarray, groups: int = 10, value: float = 0.0
) -> np.ndarray:
    """Ask whether patches with more salience have more effect: the salience-guided faithfulness coefficient.

    Patches are put into groups by their rank. For each pair of groups the difference of their saliences counts for the
    map if the effects of the groups stand in the same order, and against it if not (algorithm 1 of the paper).

    Args:
        model: a classifier, from images to logits.
        images: as the model takes them, `(B, H, W, C)`.
        maps: `(B, rows, columns)`.
        target: int `(B,)`.
        groups: how many, 2 to the number of patches.
        value: of the pixels of a group that is taken away.

    Returns:
        float64 `(B,)`, from -1 (the opposite) to 1 (faithful); 0 for a map of one value.

    Raises:
        ValueError: if the shapes do not fit, or `groups` is out of range.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model, images = ViTClassifier.from_preset("vit_mnist_pure"), np.zeros((1, 28, 28, 1), "float32")
        >>> saco(model, images, np.arange(49.0).reshape(1, 7, 7), np.array([3])).shape
        (1,)
    """
    images, maps = _checked(model, images, maps)
    count = maps[0].size
    groups = _checks.positive_int("groups", groups, minimum=2)
    if groups > count:
        raise ValueError(f"`groups` may be at most {count}, the number of patches. Received: groups={groups}")
    found = []
    for image, of_image, label in zip(images, maps, np.asarray(target), strict=True):
        flat = of_image.ravel()
        parts = np.array_split(np.argsort(-flat, kind="stable"), groups)
        salience = np.array([flat[part].sum() for part in parts])
        is_there = np.ones((groups + 1, count), bool)  # the last is the whole image
        for row, part in enumerate(parts):
            is_there[row, part] = False
        seen = _probabilities(model, image, is_there.reshape(-1, *maps.shape[1:]), int(label), value)
        effect = seen[-1] - seen[:-1]
        more, less = np.triu_indices(groups, 1)  # `more` has at least as high a rank
        difference = salience[more] - salience[less]
        weights = np.where(effect[more] >= effect[less], difference, -difference)
        total = np.abs(weights).sum()
        found.append(weights.sum() / total if total else 0.0)
    return np.array(found)


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """A copy of a model whose weights are shuffled, each within its array: the same numbers, and no knowledge.

    Args:
        model: a model that can be rebuilt from its configuration.
        seed: of the shuffling, 0 to 2**31 - 1.

    Returns:
        The copy.

    Raises:
        ValueError: if the model cannot be rebuilt.

    Examples:
        >>> from keras_vit_edu.models import ViTClassifier
        >>> model = ViTClassifier.from_preset("vit_mnist_pure")
        >>> randomised(model).count_params() == model.count_params()
        True
    """
    copy: Any = copy_of_model(model)
    copy_variables(model.variables, copy.variables)
    for number, weight in enumerate(copy.trainable_variables):
        array = keras.ops.convert_to_numpy(weight)
        order = np.argsort(random.uniform(seed, (ORDERS, number), (array.size,)), kind="stable")
        weight.assign(array.ravel()[order].reshape(array.shape))
    return copy


def map_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps of each image, from -1 to 1.

    For the check of randomisation: maps of a model and of `randomised(model)` that agree show the image, not the model.

    Args:
        maps: `(B, rows, columns)`.
        others: of the same shape.

    Returns:
        float64 `(B,)`; 0 for a map of one value.

    Examples:
        >>> map_correlation(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[1.0, 4.0], [9.0, 16.0]]])).tolist()
        [1.0]
    """
    from scipy.stats import rankdata  # in the extra `cli`

    ranks = [rankdata(entry.reshape(len(entry), -1), axis=1) for entry in (maps, others)]
    first, second = (entry - entry.mean(axis=1, keepdims=True) for entry in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.divide((first * second).sum(axis=1), scale, out=np.zeros(len(first)), where=scale > 0)


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the highest patch of a map holds a part of an object, and what chance gives.

    Args:
        maps: `(B, rows, columns)`.
        masks: bool `(B, H, W)`, True where the objects are, such as `SameDifferent.masks`.

    Returns:
        Bool `(B,)`, whether it is a hit (of several highest patches, the first in reading order counts); and float64
        `(B,)`, the share of patches that would be.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> mask = np.zeros((1, 4, 4), bool)
        >>> mask[0, 0, 3] = True
        >>> hits, chance = pointing_game(np.array([[[0.1, 0.7], [0.1, 0.1]]]), mask)
        >>> hits.tolist(), chance.tolist()
        ([True], [0.25])
    """
    count, rows, columns = maps.shape
    if masks.ndim != 3 or len(masks) != count or masks.shape[1] % rows or masks.shape[2] % columns:
        raise ValueError(f"Maps {maps.shape} do not fit masks of shape {masks.shape}.")
    cut = masks.reshape(count, rows, masks.shape[1] // rows, columns, masks.shape[2] // columns)
    holds = cut.any(axis=(2, 4)).reshape(count, -1)
    return holds[np.arange(count), maps.reshape(count, -1).argmax(axis=1)], holds.mean(axis=1)


def _checked(model: Any, images: Any, maps: Any) -> tuple[np.ndarray, np.ndarray]:
    images, maps = checked_images(model, images), np.asarray(maps, "float64")
    if maps.ndim != 3 or len(maps) != len(images) or not np.isfinite(maps).all():
        raise ValueError(
            f"`maps` must be finite numbers (B, rows, columns), one map for each of {len(images)} images. "
            f"Received: shape {maps.shape}"
        )
    return images, maps
