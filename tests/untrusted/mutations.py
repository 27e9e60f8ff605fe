"""Files as a stranger might have changed them: small real artifacts, presets and runs, each with one thing spoiled."""

import hashlib
import json
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu.load_classifier import trained
from keras_vit_edu.models import CNNClassifier, ViTBackbone
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.training import load_recipe
from keras_vit_edu.training.run_images import dataset_of_run
from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.support import opened_vit, vit_classifier

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 5, 7, 100, 1000, 10**5, 10**6, 10**9, 10**12, 2**31, 2**63, 10**400, -(10**12),
    0.5, 1e-320, 1e308, float("nan"), float("inf"), "", "x", "5", "\x1b[31m", "a\nb", "\0", "float16", "channels_first",
    "mean", "conv", "/dev/zero", "../..", [], [1, 2], [[]], [10**6] * 3, [5] * 1000, {}, {"a": 1},
    {"class_name": "Lambda"},
    {"class_name": "function", "module": "os", "config": "system"},
)  # fmt: skip
DEEP = "DEEP"  # becomes ten thousand brackets


# What is changed. -----------------------------------------------------------------------------------------------------


def make_sources(root: Path, with_hub: bool = False) -> dict[str, Path]:
    """Small sound examples of everything that is read, by kind."""
    sizes: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "key_dim": 3, "mlp_dim": 8}
    backbone = ViTBackbone((16, 16, 3), 8, 6, num_prefix_tokens=1, **sizes)
    opened = TransferClassifier(opened_vit(backbone, 2), Preprocessing(16, scale=1 / 255), ["cat", "dog"])
    opened.save(root / "artifact")
    opened.save(root / "artifact.zip")
    vit = vit_classifier(10, projection_dim=6, head="mean", head_units=(4,), locality=0.5, **sizes)
    vit.save_to_preset(root / "preset", {"class_names": list("0123456789")})
    CNNClassifier(10, filters=(2, 3), head_units=(4,)).save_to_preset(root / "cnn")
    run = root / "run"
    run.mkdir()
    vit.save(run / "model.keras")
    record = {
        "status": "finished",
        "configuration": {"dataset": {"name": "mnist-sample", "sha256": "0"}, "recipe": {}, "model": {}},
        "source": "the package",
        "class_names": list("0123456789"),
        "sessions": [],
    }
    (run / "run.json").write_text(json.dumps(record))
    (root / "recipe").mkdir()
    recipe = {"optimizer": "adamw", "epochs": 3, "augmentation": {"rotation": 5.0}, "no_weight_decay": ["bias"]}
    (root / "recipe" / "recipe.json").write_text(json.dumps(recipe))
    kinds = ["artifact", "artifact.zip", "preset", "cnn", "run", "recipe"]
    if with_hub:
        _hub_artifact().save(root / "hub")
        kinds.append("hub")
    return {kind: root / kind for kind in kinds}


def _hub_artifact() -> TransferClassifier:
    from keras_hub.models import ResNetBackbone, ResNetImageClassifier

    backbone = ResNetBackbone(
        input_conv_filters=[4], input_conv_kernel_sizes=[3], stackwise_num_filters=[4, 4], stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2], block_type="basic_block", use_pre_activation=True, image_shape=(None, None, 3),
    )  # fmt: skip
    model = ResNetImageClassifier(backbone, 2)
    return TransferClassifier(model, Preprocessing(16, scale=1 / 255), ["cat", "dog"])


def load(kind: str, path: Path) -> None:
    """Read it, as the library does for a user."""
    if kind in ("artifact", "artifact.zip", "hub"):
        TransferClassifier.load(path)
    elif kind in ("preset", "cnn"):
        Preset.from_preset(path)
        Preset.from_preset(path, load_weights=False)
    elif kind == "run":
        trained(str(path))
        dataset_of_run(path)
    else:
        load_recipe(path / "recipe.json")


# How. -----------------------------------------------------------------------------------------------------------------


def spoil(kind: str, source: Path, target: Path, rng: np.random.Generator) -> str:
    """Copy `source` to `target` with one thing changed; says which."""
    if source.is_file():
        data, what = changed_bytes(source.read_bytes(), rng)
        target.write_bytes(data)
        return what
    shutil.copytree(source, target)
    files = sorted(target.iterdir())
    file = files[rng.integers(len(files))]
    if file.suffix == ".json" and rng.random() < 0.85:
        what = _change_json(file, rng)
    elif file.suffix == ".keras" and rng.random() < 0.6:
        what = _change_config_of(file, rng)
    else:
        data, what = changed_bytes(file.read_bytes(), rng)
        file.write_bytes(data)
    if file.suffix == ".safetensors" and rng.random() < 0.7:
        _tell(target, file)
    return f"{file.name}: {what}"


def changed_bytes(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Some bytes flipped, cut off, doubled, or replaced."""
    way, place = rng.integers(5), int(rng.integers(max(len(data), 1)))
    if way == 0:
        return data[:place], f"cut off after {place} bytes"
    if way == 1:
        return data[:place] + data[place : place + 100] + data[place:], f"doubled after {place} bytes"
    if way == 2:
        return data[:place] + bytes(min(8, len(data) - place)) + data[place + 8 :], f"zeros at {place}"
    if way == 3:
        ones = b"\xff" * min(4, len(data) - place)
        return data[:place] + ones + data[place + 4 :], f"ones at {place}"
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(min(len(data), 4000) if rng.random() < 0.5 else len(data)))
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed), f"flipped a bit at {place}"


def changed_json(text: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """One value replaced, removed or added."""
    content = json.loads(text)
    places = list(_places(content, ()))
    path = places[rng.integers(len(places))]
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    value = DEEP if rng.random() < 0.05 else VALUES[rng.integers(len(VALUES))]
    way = rng.random()
    if way < 0.1 and isinstance(parent, dict):
        del parent[path[-1]]
        value = "nothing"
    elif way < 0.15 and isinstance(parent, dict):
        parent[f"{path[-1]}x"] = value
    else:
        parent[path[-1]] = value
    deep = b"[" * 10_000 + b"]" * 10_000
    return json.dumps(content).encode().replace(b'"DEEP"', deep), f"{'.'.join(map(str, path))} = {str(value)[:60]}"


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    if path:
        yield path
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _places(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value[:3]):
            yield from _places(entry, (*path, index))


def _change_json(file: Path, rng: np.random.Generator) -> str:
    data, what = changed_json(file.read_bytes(), rng)
    file.write_bytes(data)
    return what


def _change_config_of(file: Path, rng: np.random.Generator) -> str:
    """Change the configuration inside of a `.keras` file."""
    import zipfile

    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = "model.weights.h5" if rng.random() < 0.3 else "config.json"
    change: Callable[..., tuple[bytes, str]] = changed_bytes if name.endswith("h5") else changed_json
    entries[name], what = change(entries[name], rng)
    with zipfile.ZipFile(file, "w") as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    return f"{name}: {what}"


def _tell(folder: Path, weights: Path) -> None:
    """Let the other file tell of the changed weights."""
    data = weights.read_bytes()
    said: dict[str, Any]
    if (folder / "artifact.json").is_file():
        said = json.loads((folder / "artifact.json").read_bytes())
        said["weights"] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (folder / "artifact.json").write_text(json.dumps(said))
    else:
        said = json.loads((folder / "metadata.json").read_bytes())
        said |= {"weights_sha256": hashlib.sha256(data).hexdigest(), "weights_bytes": len(data)}
        (folder / "metadata.json").write_text(json.dumps(said))


# What came of it. -----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """Of one changed file."""

    what: str
    error: BaseException | None
    megabytes: float
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether it loaded, or was refused in one line."""
        return self.error is None or (isinstance(self.error, ValueError) and str(self.error) != "")


def attempt(kind: str, source: Path, target: Path, seed: int) -> Outcome:
    """Spoil a copy of `source`, read it, and remove it again."""
    rng = np.random.default_rng(seed)
    what = f"{kind}, seed {seed}: {spoil(kind, source, target, rng)}"
    memory, began, error = peak(), time.process_time(), None
    try:
        load(kind, target)
    except Exception as raised:
        error = raised
    seconds, grown = time.process_time() - began, peak() - memory
    keras.backend.clear_session()
    if target.is_file():
        target.unlink()
    else:
        shutil.rmtree(target)
    return Outcome(what, error, grown, seconds)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux says kB
