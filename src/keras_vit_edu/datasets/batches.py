"""Batches whose order is the same on every backend."""

import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks, random

Augment = Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]


class Batches(keras.utils.PyDataset):
    """Images and labels in batches, in an order that depends only on the seed and the epoch.

    The order is a permutation from NumPy's Philox under `(seed, epoch)`. Pass it to `fit` with `shuffle=False`, because
    `fit` shuffles the batches differently on each backend. Add the callback `Batches.follow_epochs()`, which sets
    `epoch` when an epoch begins. `fit` requests batches ahead of time and repeatedly, so `Batches` cannot count epochs.

    Another thread prepares the next batch during the training step. (Keras's own `workers` would run ahead of the
    callback, into an epoch whose order is not set yet.)

    Args:
        images: uint8 `(n, H, W, C)`; with `augment` any input of that function, of shape `(n, ...)`.
        labels: whole numbers `(n,)` of an integer dtype, from 0; below `one_hot` if it is given.
        batch_size: images per batch; the last batch may be smaller.
        shuffle: False keeps the given order in every epoch.
        seed: seed of the order, an int in [0, 2**31).
        one_hot: number of classes, for labels as float32 rows with a 1; None for int labels.
        augment: a function of `(images, labels, epoch, index)`, with the uint8 images of batch `index`. It returns
            float32 images in [0, 1] and labels, and depends on nothing else. None leaves images unchanged.

    Returns:
        Indexing gives `(images, labels)`: float32 in [0, 1] `(b, H, W, C)`, and int32 `(b,)` or float32
        `(b, one_hot)`.

    Raises:
        ValueError: if there are no images, the numbers of images and labels differ, a size or seed is out of range, or
            a label is out of range or not a whole number (floats such as 3.0, bools and rows are refused).

    Examples:
        >>> batches = Batches(np.zeros((5, 28, 28, 1), "uint8"), np.arange(5), batch_size=2, seed=0)
        >>> [len(labels) for _, labels in batches]
        [2, 2, 1]
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int = 256,
        shuffle: bool = True,
        seed: int = 0,
        one_hot: int | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        number, number_of_labels = _length(images), _length(labels)
        if number != number_of_labels or not number:
            raise ValueError(
                f"There must be images, and one label for each. Received: {number} images and {number_of_labels} labels"
            )
        dtype = getattr(images, "dtype", type(images).__name__)
        if augment is None and dtype != np.uint8:
            raise ValueError(f"Images must be uint8, 0 to 255. Received: images of dtype {dtype}")
        checked_seed = random.check_seed(seed)
        if checked_seed is None:
            raise ValueError("`seed` must be an int. Received: seed=None")
        self.images = images
        self.batch_size = _checks.positive_int("batch_size", batch_size)
        self.one_hot = None if one_hot is None else _checks.positive_int("one_hot", one_hot)
        self.labels = _checks.labels("`labels`", labels, self.one_hot)
        self.shuffle = shuffle
        self.seed = checked_seed
        self.augment = augment
        self.epoch = 0
        self._start()

    def _start(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: tuple[tuple[int, int], Future] | None = None  # ((epoch, index), the batch to be)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_thread", "_ahead")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def epoch(self) -> int:
        """The epoch whose order the batches have, from 0."""
        return self._state[0]

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        count = len(self.images)
        order = random.permutation(self.seed, (epoch,), count) if self.shuffle else np.arange(count)
        self._state = epoch, order

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} batches. Received: index={index}")
        if self._process != os.getpid():  # a fork copies everything but the thread
            self._start()
        epoch, order = self._state  # once: another thread may set the epoch meanwhile
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (epoch, index):
            batch = ahead[1].result()
        else:
            batch = self._prepare(order, epoch, index)
        if index + 1 < len(self):
            self._ahead = ((epoch, index + 1), self._thread.submit(self._prepare, order, epoch, index + 1))
        return batch

    def _prepare(self, order: np.ndarray, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        images, labels = self.images[chosen], self.labels[chosen]
        if self.one_hot is not None:
            labels = (labels[:, None] == np.arange(self.one_hot)).astype("float32")  # (b, one_hot)
        if self.augment is not None:
            return self.augment(images, labels, epoch, index)
        return images.astype("float32") / np.float32(255), labels

    def follow_epochs(self) -> keras.callbacks.Callback:
        """A callback for `fit` that sets `epoch` when an epoch begins."""

        def set_epoch(epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        return keras.callbacks.LambdaCallback(on_epoch_begin=set_epoch)


def _length(value: Any) -> int | None:
    """The number of entries; None for a number, None or a generator."""
    try:
        return len(value)
    except TypeError:
        return None
