"""Make a bundled preset with weights out of a finished run.

    python tools/preset_from_run.py RUN --name vit_mnist_hybrid [--data mnist.npz] [--runs N]

RUN is what `keras-vit-edu train --preset vit_mnist_hybrid` left. The preset must be one of those that are bundled; its
configuration, description and class names stay, and weights and what is known of them are added. The weights of the
last epoch (with a moving average in the recipe: their average) are stored in float16 if that gets no test image more
wrong than float32 does, else in float32; `--weights-dtype float32` leaves float16 out. Everything that is recorded was
measured on the weights as they come back out of the files. Afterwards: python tools/model_cards.py
"""

import argparse  # noqa: I001  (keras_vit_edu chooses the backend, so it comes before Keras)
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_vit_edu  # noqa: F401
import keras
import numpy as np

from keras_vit_edu import datasets, training
from keras_vit_edu.models import preset_files
from keras_vit_edu.models.reference_logits import IMAGES, reference_logits
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.training.run_folder import differences
from keras_vit_edu.training.train import fingerprint

BUNDLED = Path(preset_files.__file__).with_name("presets")
OF_MNIST = ("mnist", "mnist-sample")  # their test images are those of the bundled sample, or hold them


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--name", required=True, help="of the bundled preset that was trained")
    parser.add_argument("--data", type=Path, help="an npz file or a folder of IDX files, as train takes it")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="folder of presets to write into")
    parser.add_argument("--runs", type=int, default=1, help="how many runs there were to take this one from")
    parser.add_argument("--weights-dtype", choices=["auto", "float32"], default="auto")
    given = parser.parse_args(arguments)
    try:
        folder = make(given.run, given.name, given.data, given.out, given.runs, given.weights_dtype == "auto")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{folder}: {(folder / preset_files.WEIGHTS).stat().st_size:,} bytes of weights")


def make(run: Path, name: str, data: Path | None, out: Path, runs: int = 1, try_float16: bool = True) -> Path:
    """The folder of the preset, written.

    Raises:
        ValueError: if there is no such preset; if the run is not finished, of another model or other data, cannot be
            repeated by one command, or its model does not do as well as it says.
    """
    if name not in Preset.presets:
        raise ValueError(f"There is no bundled preset {name!r}. There are {', '.join(Preset.presets)}.")
    if runs < 1:
        raise ValueError(f"There must be 1 run or more. Received: runs={runs}")
    record = read_record(run)
    command = reproducing_command(record, name)
    model = keras.saving.load_model(run / "model.keras")
    expected = Preset.from_preset(name, load_weights=False)
    differing = list(differences(as_json(expected.get_config()), as_json(model.get_config())))
    if differing:
        raise ValueError(f"{run} is no run of {name}: {'; '.join(differing)}.")
    of_run = record["configuration"]["dataset"]
    dataset = datasets.load(of_run["name"], data)
    if fingerprint(dataset) != of_run:
        raise ValueError(f"{dataset.source} is not the {of_run['name']} of the run. Received: {fingerprint(dataset)}")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored = {"float32": as_stored(model, folder / "float32", "float32")}
        if try_float16 and largest_weight(model) <= np.finfo("float16").max:
            stored["float16"] = as_stored(model, folder / "float16", "float16")
        right = {dtype: count_right(each, dataset) for dtype, each in stored.items()}
        print(", ".join(f"{dtype}: {count:,} of {len(dataset.y_test):,} right" for dtype, count in right.items()))
        as_trained = round(record["test_accuracy"] * len(dataset.y_test))
        if abs(right["float32"] - as_trained) > 2:
            found = right["float32"]
            raise ValueError(f"run.json says that {as_trained} are right. Received: a model that gets {found} right")
        chosen = "float16" if right.get("float16", -1) >= right["float32"] else "float32"
        metadata = {
            **about_the_model(name),
            **about_the_run(record, command, runs),
            **measurements(stored[chosen], dataset, right, chosen),
        }
        stored[chosen].save_to_preset(folder / chosen, metadata, overwrite=True, weights_dtype=chosen)
        (out / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / chosen / preset_files.WEIGHTS, out / name)
        shutil.copy(folder / chosen / preset_files.METADATA, out / name)
        if out.resolve() != BUNDLED.resolve():  # the bundled configuration leaves the dtype to the user, so it stays
            shutil.copy(BUNDLED / name / preset_files.CONFIG, out / name)
    return out / name


def read_record(run: Path) -> dict[str, Any]:
    record = preset_files.read_json(run / "run.json")
    if record.get("status") != "finished":
        raise ValueError(f"{run} is not finished. Received: status={record.get('status')!r}")
    backends = {session["backend"] for session in record["sessions"]}
    if len(backends) > 1:
        raise ValueError(f"A preset comes from a run on one backend. Received: {', '.join(sorted(backends))}")
    # A run may be older than a field of its recipe.
    return record | {"recipe": training.Recipe.from_json(record["recipe"]).to_json()}


def reproducing_command(record: dict[str, Any], name: str) -> str:
    """`keras-vit-edu train` with the options that the run's recipe needs, and no path of this machine."""
    recipe, dataset = record["recipe"], record["configuration"]["dataset"]["name"]
    if recipe["name"] not in training.RECIPES:
        raise ValueError(f"The recipe must be one with a name. Received: {recipe['name']!r}")
    named = training.load_recipe(recipe["name"])
    words = ["keras-vit-edu train", f"--preset {name}", f"--dataset {dataset}", f"--recipe {named.name}"]
    for field, usual in named.to_json().items():
        value = recipe[field]
        if field == "seed":
            words.append(f"--seed {value}")
        elif value != usual:
            option = f"--{field.replace('_', '-')}"
            words += [f"{option} {each}" for each in (value if isinstance(value, list) else [given(field, value)])]
    # Runs from before there was the option say nothing.
    (jit_compile, *others) = {session.get("jit_compile") for session in record["sessions"]}
    if others:
        raise ValueError("A preset comes from a run that was compiled by XLA from beginning to end, or not at all.")
    if jit_compile is not None:
        words.append("--jit-compile" if jit_compile else "--no-jit-compile")
    return " ".join([*words, f"--backend {record['backend']}"])


def given(field: str, value: Any) -> Any:
    """What a field of a recipe is on the command line."""
    if field == "augmentation":
        names = [name for name, named in datasets.AUGMENTATIONS.items() if named.to_json() == value]
        value = value if isinstance(value, str) else names[0] if names else None
    if value is None:
        raise ValueError(f"No option of train gives {field!r} this value.")
    return value


def as_stored(model: Any, folder: Path, dtype: str) -> Any:
    """The model with the weights that come back when they are stored in that dtype."""
    model.save_to_preset(folder, weights_dtype=dtype)
    return type(model).from_preset(folder)


def largest_weight(model: Any) -> float:
    return max(np.abs(weight).max() for weight in model.get_weights())


def count_right(model: Any, dataset: datasets.ImageDataset) -> int:
    found = training.evaluate(model, dataset.x_test, dataset.y_test, dataset.class_names)
    return int((found.predictions == found.labels).sum())


def about_the_model(name: str) -> dict[str, Any]:
    known = Preset.presets[name]
    return {key: known[key] for key in ("description", "class_names", "input")}


def about_the_run(record: dict[str, Any], command: str, runs: int) -> dict[str, Any]:
    return {
        "dataset": {
            **record["configuration"]["dataset"],
            "images": record["images"],
            "validation_split": record["recipe"]["validation_split"],
        },
        "recipe": record["recipe"],
        "seed": record["seed"],
        "runs": runs,
        "epochs": record["epochs_done"],
        "training_seconds": record["timings"]["training_seconds"],
        "backend": record["backend"],
        "device": record["device"],
        "versions": record["versions"],
        "command": command,
        "validation_accuracy": record["validation_accuracy"],
    }


def measurements(model: Any, dataset: datasets.ImageDataset, right: dict[str, int], chosen: str) -> dict[str, Any]:
    """What the stored weights do, on the test images after the last epoch."""
    sample = datasets.load("mnist-sample") if dataset.name in OF_MNIST else None
    count = len(dataset.y_test)
    accuracy = right[chosen] / count
    return {
        "test_accuracy": accuracy,
        "test_standard_error": math.sqrt(accuracy * (1 - accuracy) / count),
        "test_right": right[chosen],
        "test_images": count,
        "test_right_by_weights_dtype": right,
        "sample_right": sample and count_right(model, sample),
        "sample_images": sample and len(sample.y_test),
        "reference_images": IMAGES,
        "reference_logits": reference_logits(model).tolist(),
    }


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


if __name__ == "__main__":
    main()
