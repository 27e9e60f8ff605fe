"""Standard checks of what has equal bits on every backend: initial weights, masks, batches, pixels, patches."""

from collections.abc import Iterator

import numpy as np
from keras import ops

from keras_vit_edu import datasets, random
from keras_vit_edu.datasets import Batches
from keras_vit_edu.layers import Patches, PortableDropout
from keras_vit_edu.parity import oracle
from keras_vit_edu.parity.checks import Measurement, Scene, check
from keras_vit_edu.parity.compare import EQUAL_BITS
from keras_vit_edu.parity.drawn import program_p, relative_path


@check("initial-weights", {"weights": EQUAL_BITS}, referenced=True)
def initial_weights(scene: Scene) -> Iterator[Measurement]:
    """Program P with seed 0, before training: each of its weights."""
    model = program_p()
    for weight in model.weights:
        yield Measurement("weights", relative_path(model, weight), ops.convert_to_numpy(weight))


@check("dropout", {"seeds": EQUAL_BITS, "masks": EQUAL_BITS}, referenced=True)
def dropout(scene: Scene) -> Iterator[Measurement]:
    """PortableDropout's mask, step by step, beside NumPy's; and the seeds that set_random_seed gives."""
    random.set_seed(0)
    seeds = [ops.convert_to_numpy(PortableDropout(0.1).seed_generator.state)[0] for _ in range(3)]
    yield Measurement("seeds", "after set_random_seed(0)", np.array(seeds, "int64"))
    ones = np.ones((5, 7, 64), "float32")
    for rate in (0.1, 0.5):
        layer = PortableDropout(rate, seed=3)
        for step in range(4):
            kept = ops.convert_to_numpy(layer(ones, training=True)) != 0
            expected = random.dropout_mask(3, step, ones.shape, rate)
            yield Measurement("masks", f"rate {rate}, step {step}", kept, expected)


@check("batches", {"labels": EQUAL_BITS, "images": EQUAL_BITS}, referenced=True)
def batches(scene: Scene) -> Iterator[Measurement]:
    """Which images come in which batch, epoch by epoch, beside the ranks of NumPy's Philox."""
    number = np.arange(1000)
    images = np.stack([number // 256, number % 256], axis=1).astype("uint8")[:, None, :, None]  # (1000, 1, 2, 1)
    seed = 5
    loader = Batches(images, number, batch_size=64, seed=seed)
    for epoch in (0, 1, 7):
        loader.epoch = epoch
        pairs = [loader[i] for i in range(len(loader))]
        words = np.random.Philox(key=seed, counter=[0, 0, 0, epoch]).random_raw(len(number))
        order = np.argsort(words, kind="stable")
        labels = np.concatenate([labels for _, labels in pairs])
        yield Measurement("labels", f"epoch {epoch}", labels, order.astype("int32"))
        pixels = np.concatenate([images for images, _ in pairs])
        yield Measurement("images", f"epoch {epoch}", pixels, images[order].astype("float32") / np.float32(255))


@check("augmentation", {"images": EQUAL_BITS, "labels": EQUAL_BITS}, referenced=True)
def augmentation(scene: Scene) -> Iterator[Measurement]:
    """Batches of the bundled sample, augmented: as digits, as clothes, and by MixUp and CutMix."""
    sample = datasets.load("mnist-sample")
    images, labels = sample.x_test[:32], np.eye(10, dtype="float32")[sample.y_test[:32]]
    augmentations = {**datasets.AUGMENTATIONS, "mixed": datasets.Augmentation(mixup=0.8, cutmix=1.0)}
    for name, augment in augmentations.items():
        for epoch, index in ((0, 0), (0, 2), (7, 1)):
            varied, shares = augment(images, labels, 5, epoch, index)
            yield Measurement("images", f"{name}, epoch {epoch}, batch {index}", varied)
            yield Measurement("labels", f"{name}, epoch {epoch}, batch {index}", shares)


@check("patches", {"patches": EQUAL_BITS}, referenced=True)
def patches(scene: Scene) -> Iterator[Measurement]:
    """Patches of images, and images put together again."""
    images = (random.bits(1, 0, (2, 6, 8, 3)) >> 24).astype("uint8")
    floats = images.astype("float32") / np.float32(255)
    layer = Patches((3, 2))
    yield Measurement("patches", "uint8", ops.convert_to_numpy(layer(images)), oracle.patches(images, (3, 2)))
    cut = layer(floats)
    yield Measurement("patches", "float32", ops.convert_to_numpy(cut), oracle.patches(floats, (3, 2)))
    yield Measurement("patches", "restored", ops.convert_to_numpy(layer.restore(cut, (6, 8))), floats)
    first = Patches((3, 2), data_format="channels_first")(floats.transpose(0, 3, 1, 2))
    yield Measurement("patches", "channels first", ops.convert_to_numpy(first), oracle.patches(floats, (3, 2)))
