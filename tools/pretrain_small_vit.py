"""Pretrain the small ViT that the tests of transfer learning start from, and save it as a preset of keras_hub.

    python tools/pretrain_small_vit.py --data FOLDER --run RUN tests/transfer/small_vit

FOLDER holds `mnist.npz` and `fashion_mnist.npz`. The model learns the clothes of Fashion-MNIST and the digits 0 to 4,
in colour and 32 x 32 pixels, as photographs come; it never sees the digits 5 to 9, which the tests transfer it to. Five
digits are few: a digit turned or mirrored counts as another one, unless it looks the same.
"""

import argparse
import shutil
from pathlib import Path

import keras
import keras_hub
import numpy as np

from keras_vit_edu.datasets import Augmentation, ImageDataset, load
from keras_vit_edu.training import Recipe, RunFolder, train

SIDE = 32
FASHION = 30_000  # of its training images: as many as there are digits 0 to 4
# Digit, quarter turns, mirrored: each is a class. Label smoothing would draw the images of a class together, and what
# other classes need would be lost (Kornblith et al. 2021, arXiv 2010.16402).
SIGNS = [(0, 0, False), (1, 0, False), (1, 1, False)]
SIGNS += [(digit, turns, mirrored) for digit in (2, 3, 4) for turns in range(4) for mirrored in (False, True)]
RECIPE = Recipe(
    name="small-vit",
    learning_rate=2e-3,
    schedule="cosine",
    warmup_epochs=2,
    weight_decay=0.05,
    global_clipnorm=1.0,
    ema=0.99,
    epochs=14,
    batch_size=128,
    validation_split=0.05,
    augmentation=Augmentation(rotation=12, shift=2.5, scale=0.15, shear=0.15, elastic=0.7),
)


def colour(images: np.ndarray) -> np.ndarray:
    """Grey `(n, 28, 28, 1)` as RGB `(n, 32, 32, 3)`, with a black border."""
    border = (SIDE - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
    return np.repeat(padded, 3, axis=-1)


def clothes_and_digits(folder: Path) -> ImageDataset:
    """Fashion-MNIST as classes 0 to 9, the digits 0 to 4, turned and mirrored at random, as further ones; mixed."""
    fashion, mnist = load("fashion-mnist", folder), load("mnist", folder)
    rng = np.random.default_rng(0)
    signs_of = [[i for i, (digit, _, _) in enumerate(SIGNS) if digit == k] for k in range(5)]

    def joined(part: str, count: int | None) -> tuple[np.ndarray, np.ndarray]:
        clothes, their_labels = (getattr(fashion, f"{xy}_{part}")[:count] for xy in "xy")
        images, labels = (getattr(mnist, f"{xy}_{part}") for xy in "xy")
        is_low = labels < 5
        digits = images[is_low].copy()
        signs = np.array([rng.choice(signs_of[k]) for k in labels[is_low]])
        for i, (_, turns, mirrored) in enumerate(SIGNS):
            turned = np.rot90(digits[signs == i], turns, axes=(1, 2))
            digits[signs == i] = turned[:, :, ::-1] if mirrored else turned
        order = rng.permutation(len(clothes) + len(digits))
        return (
            colour(np.concatenate([clothes, digits])[order]),
            np.concatenate([their_labels, (signs + 10).astype("int32")])[order],
        )

    return ImageDataset(
        "clothes-and-digits",
        str(folder),
        *joined("train", FASHION),
        *joined("test", None),
        class_names=(*fashion.class_names, *(f"{k}, turned {t} times{', mirrored' * m}" for k, t, m in SIGNS)),
    )


def small_vit(num_classes: int) -> keras.Model:
    """A ViT of keras_hub: 4 blocks of 96, patches of 4 x 4 pixels."""
    models = keras_hub.models
    backbone = models.ViTBackbone(
        (SIDE, SIDE, 3), patch_size=4, num_layers=4, num_heads=3, hidden_dim=96, mlp_dim=192, name="small_vit"
    )
    converter = keras_hub.layers.ViTImageConverter(image_size=(SIDE, SIDE), scale=1 / 255)
    preprocessor = models.ViTImageClassifierPreprocessor(converter)
    return models.ViTImageClassifier(
        backbone, num_classes=num_classes, preprocessor=preprocessor, name="small_vit_classifier"
    )


def main(folder: Path, data: Path, run: Path, epochs: int) -> None:
    if folder.exists() and not (folder / "task.json").is_file():
        raise SystemExit(f"{folder} is no preset of keras_hub, and would be replaced")
    images = clothes_and_digits(data)
    keras.utils.set_random_seed(RECIPE.seed)
    model = small_vit(len(images.class_names))
    plain = keras.Model(model.input, model.output, name=model.name)  # theirs would preprocess once more
    with RunFolder(run) as opened:
        record = train(plain, images, opened, RECIPE.replace(epochs=epochs))
    print(f"{record['test_accuracy']:.2%} of {len(images.x_test):,} test images, {len(images.class_names)} classes")
    if folder.exists():
        shutil.rmtree(folder)
    model.save_to_preset(str(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the preset goes; what is there is replaced")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="run folder of the training")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.data, arguments.run, arguments.epochs)
