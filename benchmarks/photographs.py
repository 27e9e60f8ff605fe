"""200 JPEG files from disk to the five most probable classes, DeiT-Ti/16: ours, against Keras and keras_hub.

Theirs is what keras_hub's guides do: `keras.utils.load_img` for each file, then the classifier's `predict`, which
preprocesses; and once more with `keras.utils.image_dataset_from_directory`, which decodes and resizes by TensorFlow on
several threads.
"""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from benchmarks import hub_models
from benchmarks.timing import Timing, compare

FILES, BATCH, TOP = 200, 32, 5
SAME = 0.95  # a share: pixels differ by 1 of 255 where they are rounded
SIZE = (500, 375)  # in pixels, width and height, as ImageNet's are in the mean
THEIRS = "keras_hub, load_img"


def run(rounds: int) -> dict[str, dict[str, dict[str, Timing]]]:
    """The comparison, by its title and clock."""
    theirs = hub_models.keras_hubs("DeiT-Ti/16")
    ours = hub_models.opened(theirs)
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder) / "all")

        def best(probabilities: np.ndarray) -> np.ndarray:
            return np.argsort(-probabilities, axis=-1)[:, :TOP]

        def load_img() -> np.ndarray:
            images = np.stack([keras.utils.img_to_array(keras.utils.load_img(file)) for file in files])
            return best(theirs.predict(images, batch_size=BATCH, verbose=0))

        def dataset() -> np.ndarray:
            images = keras.utils.image_dataset_from_directory(
                folder, labels=None, image_size=2 * (hub_models.SIDE,), crop_to_aspect_ratio=True, batch_size=BATCH,
                shuffle=False, verbose=False,
            )  # fmt: skip
            return best(theirs.predict(images, verbose=0))

        agree(load_img(), dataset(), [[int(name) for name, _ in row] for row in ours.predict(files, TOP, BATCH)])
        candidates = {
            THEIRS: load_img,
            "keras_hub, image_dataset_from_directory": dataset,
            "ours": lambda: ours.predict(files, TOP, BATCH),
        }
        return {f"{FILES} JPEG files of {SIZE[0]} x {SIZE[1]}": compare(candidates, THEIRS, rounds, warm_up=1)}


def agree(*several: Any) -> None:
    """Complain unless all name the same class as the most probable, but for a few files."""
    first, *others = (np.asarray(one)[:, 0] for one in several)
    for other in others:
        if not np.mean(first == other) >= SAME:
            raise RuntimeError(f"only {np.mean(first == other):.0%} of the files are of the same class")


def photographs(folder: Path) -> list[Path]:
    """Smooth coloured noise, which JPEG packs about as a photograph."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = []
    for i in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), "uint8"))
        files.append(folder / f"{i:03d}.jpg")
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files
