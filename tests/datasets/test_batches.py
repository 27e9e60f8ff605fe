import copy
import hashlib
import os
import pickle
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

from keras_vit_edu.datasets import Batches

pytestmark = pytest.mark.quick


def numbered(count, **kwargs):
    """Batches of `count` images; label i belongs to the image whose first pixels spell i."""
    images = np.zeros((count, 28, 28, 1), "uint8")
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(count), 256)
    return Batches(images, np.arange(count), **kwargs)


def labels_of(batches):
    return np.concatenate([labels for _, labels in batches])


def test_every_image_comes_once_with_its_own_label():
    batches = numbered(1000, batch_size=64)
    assert sorted(labels_of(batches)) == list(range(1000))
    for images, labels in batches:
        pixels = np.rint(images[:, 0, :2, 0] * 255).astype(int)
        np.testing.assert_array_equal(pixels[:, 0] * 256 + pixels[:, 1], labels)


def test_images_become_float32_from_0_to_1():
    images, labels = Batches(np.array([0, 51, 255], "uint8").reshape(3, 1, 1, 1), [0, 1, 2], shuffle=False)[0]
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(images.ravel(), np.array([0, 51 / 255, 1], "float32"))


def test_the_last_batch_holds_what_is_left():
    batches = numbered(10, batch_size=4)
    assert len(batches) == 3
    assert [len(labels) for _, labels in batches] == [4, 4, 2]


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        batches = numbered(500, seed=seed)
        batches.epoch = epoch
        return labels_of(batches).tolist()

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2**31 - 1) for epoch in range(4)}) == 12


def test_a_batch_is_the_same_however_often_and_in_whatever_order_it_is_asked_for():
    batches = numbered(100, batch_size=32)
    first = [batches[index][1].tolist() for index in range(4)]
    assert [batches[index][1].tolist() for index in (3, 1, 2, 0)] == [first[3], first[1], first[2], first[0]]


class Watched(Batches):
    """Notes which thread prepares which batch."""

    def __init__(self, *arguments, **kwargs):
        self.prepared = []
        self.second_batch_is_there = threading.Event()
        super().__init__(*arguments, **kwargs)

    def _prepare(self, order, epoch, index):
        batch = super()._prepare(order, epoch, index)
        self.prepared.append((index, threading.current_thread()))
        if index == 1:
            self.second_batch_is_there.set()
        return batch


def test_the_next_batch_is_prepared_ahead_by_another_thread_and_once():
    batches = Watched(np.zeros((6, 1, 1, 1), "uint8"), np.arange(6), batch_size=2)
    batches[0]
    assert batches.second_batch_is_there.wait(60)  # nobody has asked for it
    batches[1]
    batches[2]
    assert [index for index, _ in batches.prepared] == [0, 1, 2]
    threads = [thread for _, thread in batches.prepared]
    assert threads[0] is threading.main_thread()
    assert threads[1] is threads[2] is not threads[0]


def same(batch, other):
    return all(np.array_equal(mine, its) for mine, its in zip(batch, other, strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda batches: pickle.loads(pickle.dumps(batches))])
def test_a_copy_gives_the_same_batches_even_with_one_prepared_ahead(duplicate):
    batches = numbered(100, batch_size=32)
    batches[0]
    again = duplicate(batches)
    assert same(again[1], batches[1])
    assert same(again[2], batches[2])


FORK = """
import os
import numpy as np
from keras_vit_edu.datasets import Batches

batches = Batches(np.zeros((6, 1, 1, 1), "uint8"), np.arange(6), batch_size=2, shuffle=False)
batches[0]  # the next one is prepared by a thread, which a fork does not copy
child = os.fork()
if child == 0:
    os._exit(0 if [list(labels) for _, labels in batches] == [[0, 1], [2, 3], [4, 5]] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.any_backend
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_gets_its_batches():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=300)


def test_a_batch_prepared_ahead_is_not_given_out_in_another_epoch():
    batches, fresh = numbered(100, batch_size=32), numbered(100, batch_size=32)
    batches[0]
    batches.epoch = fresh.epoch = 1
    assert batches[1][1].tolist() == fresh[1][1].tolist()


def test_the_order_is_this_one_on_every_backend_and_with_every_numpy():
    batches = numbered(60_000, seed=0)
    batches.epoch = 5
    # Philox with key 0 and counter (0, 0, 0, 5): its raw words, ranked; written down on the day this was made.
    digest = hashlib.sha256(labels_of(batches).astype("<i4").tobytes()).hexdigest()
    assert digest == "d3b5f0d4f73a12f63292b28bfe243155827bea083483f2503864fb57ea606eba"


def test_the_order_is_the_ranking_of_philoxs_raw_words():
    words = np.random.Philox(key=7, counter=[0, 0, 0, 2]).random_raw(300).tolist()
    batches = numbered(300, seed=7)
    batches.epoch = 2
    assert labels_of(batches).tolist() == sorted(range(300), key=words.__getitem__)


def test_without_shuffle_the_order_is_the_one_given():
    batches = numbered(100, batch_size=32, shuffle=False)
    batches.epoch = 3
    assert labels_of(batches).tolist() == list(range(100))


class SumOfLabels(keras.losses.Loss):
    """A loss whose value tells which labels a step saw."""

    def call(self, y_true, y_pred):
        return keras.ops.cast(y_true, "float32") + 0.0 * keras.ops.mean(y_pred, axis=-1)


def test_fit_sees_each_epochs_batches_in_order():
    batches = numbered(40, batch_size=8)
    model = keras.Sequential([keras.layers.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss=SumOfLabels())
    seen, totals = [], []

    def note(batch, logs):
        # The logged loss is the mean over the epoch so far.
        totals.append(logs["loss"] * 8 * (batch + 1))
        seen.append(totals[-1] - (totals[-2] if batch else 0))

    model.fit(
        batches,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[batches.follow_epochs(), keras.callbacks.LambdaCallback(on_train_batch_end=note)],
    )
    expected = []
    for epoch in range(3):
        batches.epoch = epoch
        expected += [int(labels.sum()) for _, labels in batches]
    np.testing.assert_allclose(seen, expected, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"labels": np.zeros(2)}, "3 images and 2 labels"),
        ({"images": np.zeros((3, 2, 2, 1), "float32")}, "uint8.*float32"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**31}, "below 2"),
        ({"seed": None}, "seed=None"),
        ({"labels": None}, "3 images and None labels"),
        ({"labels": 3}, "3 images and None labels"),
        ({"images": [[[0]], [[1]], [[2]]]}, "uint8.*list"),
        ({"one_hot": 0}, "one_hot=0"),
        ({"one_hot": 2.0}, "one_hot=2.0"),
        ({"labels": [0.0, 1.0, 2.0]}, "`labels` must be whole numbers.*float64"),
        ({"labels": [1.9, 1, 1]}, "`labels` must be whole numbers.*float64"),
        ({"labels": [np.nan, 1, 1]}, "`labels` must be whole numbers.*float64"),
        ({"labels": [True, False, True]}, "`labels` must be whole numbers.*bool"),
        ({"labels": [2**40 + 3, 0, 0]}, r"`labels` must be below 2\*\*31"),
        ({"labels": [-1, 0, 0]}, "`labels` must be 0 or more"),
        ({"labels": np.eye(3, dtype=int)}, "argmax"),
        ({"labels": [-1, 0, 0], "one_hot": 3}, "`labels` must be 0 to 2. Received: from -1 to 0"),
        ({"labels": [3, 0, 0], "one_hot": 3}, "`labels` must be 0 to 2. Received: from 0 to 3"),
        ({"labels": np.eye(3, dtype=int), "one_hot": 3}, "argmax"),
    ],
)
@pytest.mark.any_backend
def test_what_cannot_be_batched_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Batches(**{"images": np.zeros((3, 2, 2, 1), "uint8"), "labels": np.zeros(3, int), **arguments})


def test_labels_as_rows_with_a_one():
    _, rows = Batches(np.zeros((3, 1, 1, 1), "uint8"), [2, 0, 1], shuffle=False, one_hot=4)[0]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError, match="There are 3 batches"):
        numbered(10, batch_size=4)[3]
