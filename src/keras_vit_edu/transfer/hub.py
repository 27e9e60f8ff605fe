"""List and load the pretrained models of keras_hub. No other file imports keras_hub."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from keras_vit_edu import _checks, _files, _keras_internals, _tensorflow_log
from keras_vit_edu._install import install_command

COURSES_FALLBACK = "vit_base_patch16_224_imagenet"  # ViT-B/16
OPENED = ("vit", "deit")  # families that `open_vit` opens; they are listed first
WITHOUT_CLASSIFIER = ("dinov2", "dinov3")  # listed beside the image classifiers
TASKS = {"classifier": "ImageClassifier", "backbone": "Backbone"}


class PresetUnavailable(ValueError):
    """A pretrained model is not available. The message says how to get it."""


class NoHead(ValueError):
    """A pretrained model has no classification head."""


@dataclass(frozen=True)
class HubPreset:
    """A pretrained model in keras_hub's registry.

    Attributes:
        name: name for loading it.
        family: `"vit"`, `"deit"`, `"resnet"`...
        image_size: side of the images in pixels, if the name or the description contains it.
        parameters: number of parameters of the backbone.
        classes: number of classes, if the name shows it: 1000 for ImageNet.
        attention_maps: whether `open_vit` opens it. Other models are used unchanged: a CNN has no attention, and the
            attention of Swin, MiT and DINO differs from our layers.
        description: one sentence.
        handle: where keras_hub loads it from.
    """

    name: str
    family: str
    image_size: int | None
    parameters: int
    classes: int | None
    attention_maps: bool
    description: str
    handle: str

    @property
    def note(self) -> str:
        """How this library uses the model, in a few words."""
        if self.family in WITHOUT_CLASSIFIER:
            return 'a backbone alone, for `transfer.load_preset(..., task="backbone")`'
        return "attention maps" if self.attention_maps else "no attention maps, used unchanged"


def list_presets(family: str | None = None) -> list[HubPreset]:
    """List the pretrained image models in keras_hub's registry. Nothing is downloaded.

    Args:
        family: a family such as `"deit"`; None for all.

    Returns:
        The presets: ViT and DeiT first, then the other families by name; within a family by size.

    Raises:
        ImportError: if keras_hub is not installed.
        ValueError: if there is no such family.

    Examples:
        >>> [preset.name for preset in list_presets("deit")][0]  # doctest: +SKIP
        'deit_tiny_distilled_patch16_224_imagenet'
    """
    presets = sorted(_all_presets(), key=lambda preset: (_rank(preset.family), preset.parameters, preset.name))
    families = list(dict.fromkeys(preset.family for preset in presets))
    if family is None:
        return presets
    if family not in families:
        raise ValueError(f"`family` must be one of {', '.join(families)}. Received: family={family!r}")
    return [preset for preset in presets if preset.family == family]


def _rank(family: str) -> tuple[int, str]:
    return (OPENED.index(family) if family in OPENED else len(OPENED), family)


def _all_presets() -> Iterator[HubPreset]:
    models = _import_keras_hub().models
    registry = dict(models.ImageClassifier.presets)
    for name, entry in models.Backbone.presets.items():
        if entry["metadata"].get("path") in WITHOUT_CLASSIFIER:
            registry[name] = entry
    for name, entry in registry.items():
        metadata = entry["metadata"]
        family = metadata["path"]
        yield HubPreset(
            name=name,
            family=family,
            image_size=_image_size(name, metadata["description"]),
            parameters=metadata["params"],
            classes=1000 if _is_of_imagenet_1k(f"{name} {metadata['description']}") else None,
            attention_maps=family in OPENED,
            description=" ".join(metadata["description"].split()),
            handle=entry["kaggle_handle"],
        )


def _is_of_imagenet_1k(text: str) -> bool:
    """Whether a name or description means ImageNet-1k. ImageNet-21k, 22k and 12k alone do not count."""
    text = text.lower()
    is_of_a_larger = re.search(r"(imagenet[-_ ]?|_in)\d\dk", text) is not None
    return re.search(r"(imagenet[-_ ]?|_in)1k", text) is not None or ("imagenet" in text and not is_of_a_larger)


def _image_size(name: str, description: str) -> int | None:
    """From "image resolution of 224x224", or `..._r224_...` in the name; the 121 of densenet_121 is no size."""
    found = re.search(r"(\d+)x\d+", description) or re.search(r"_r?(\d{3,4})(?:_|$)", name)
    size = int(found[1]) if found else 0
    return size if size >= 128 and size % 16 == 0 else None


def load_preset(
    preset: str | Path,
    task: Literal["classifier", "backbone"] = "classifier",
    fallback: str | None = None,
    **arguments: Any,
) -> keras.Model:
    """Load a pretrained model of keras_hub.

    Args:
        preset: a name from `list_presets`; a handle `kaggle://owner/model/keras/variation[/version]` or
            `hf://owner/model` (also a ViT or DeiT of transformers); or a folder that `save_to_preset` of keras_hub or
            `save_pretrained` of transformers wrote.
        task: `"classifier"` (with its preprocessor) or `"backbone"`.
        fallback: preset to load if `preset` is unavailable; a line is printed then. The course uses DeiT and falls back
            on ViT-B/16: `fallback=transfer.COURSES_FALLBACK`. None raises an error instead.
        **arguments: arguments of keras_hub's `from_preset`: `load_weights=False` for random weights, `num_classes` for
            a new head, `dtype`.

    Returns:
        A keras_hub model; `open_vit` opens it if it is a ViT or DeiT.

    Raises:
        ImportError: if keras_hub is not installed.
        ValueError: if there is no such preset, task or argument.
        NoHead: a `ValueError`, if the preset is a backbone, and `num_classes` is not given.
        PresetUnavailable: a `ValueError`, if the preset is not in the cache and cannot be downloaded.

    Examples:
        >>> load_preset("deit_base_distilled_patch16_224_imagenet", fallback=COURSES_FALLBACK)  # doctest: +SKIP
    """
    return load_and_name(preset, task, fallback, **arguments)[0]


def load_and_name(
    preset: str | Path, task: str = "classifier", fallback: str | None = None, **arguments: Any
) -> tuple[Any, str]:
    """Same as `load_preset`, but return the model and the name of the loaded preset."""
    models = _import_keras_hub().models
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}. Received: task={task!r}")
    try:
        return _from_preset(getattr(models, TASKS[task]), str(preset), arguments), str(preset)
    except PresetUnavailable as error:
        if fallback is None or fallback == str(preset):
            raise
        print(f"keras_vit_edu: {error} Loading {fallback} instead.", file=sys.stderr)
        return _from_preset(getattr(models, TASKS[task]), fallback, arguments), fallback


def imagenet_names() -> tuple[str, ...]:
    """The names of the 1000 classes of ImageNet-1k in their order, from keras_hub. Two names occur twice.

    Raises:
        ImportError: if keras_hub is not installed.

    Examples:
        >>> imagenet_names()[1]  # doctest: +SKIP
        'goldfish'
    """
    name_of = _import_keras_hub().utils.imagenet_id_to_name
    return tuple(name_of(index) for index in range(1000))


def is_of_imagenet(preset: str | Path) -> bool:
    """Whether a preset classifies ImageNet-1k, according to its name or keras_hub's registry."""
    listed = {name: row.classes for row in _all_presets() for name in (row.name, row.handle)}
    said = str(preset) if "://" in str(preset) else Path(preset).name
    return listed.get(str(preset)) == 1000 or _is_of_imagenet_1k(said)


def class_names_in_folder(preset: str | Path) -> tuple[str, ...] | None:
    """The class names that transformers' `save_pretrained` wrote; None if there are none.

    Args:
        preset: the loaded preset: a folder, a name or a handle.
    """
    file = _folder_of(str(preset)) / "config.json"
    try:
        names = _files.read_json(file).get("id2label", {})
        return tuple(str(names[str(index)]) for index in range(len(names))) or None
    except (ValueError, LookupError, AttributeError, TypeError):
        return None


def classifier_class(registered_name: str) -> Any:
    """An image classifier class of keras_hub, by its registered name, such as `"keras_hub>ResNetImageClassifier"`.

    Raises:
        ImportError: if keras_hub is not installed.
        ValueError: if there is no class with this name.
    """
    models = _import_keras_hub().models
    cls = keras.saving.get_registered_object(registered_name)
    if not (
        isinstance(cls, type) and issubclass(cls, models.ImageClassifier) and cls.__module__.startswith("keras_hub.")
    ):
        raise ValueError(f"keras_hub registers no image classifier under that name. Received: {registered_name!r}")
    return cls


def _from_preset(cls: Any, preset: str, arguments: dict[str, Any]) -> Any:
    known = _import_keras_hub().models.Backbone.presets
    is_remote = preset in known or "://" in preset
    if not is_remote and not (Path(preset) / "config.json").is_file():
        hint = _checks.did_you_mean(preset, known, at_most=2)
        raise ValueError(
            "`preset` must be a name from `list_presets`, a handle that begins with kaggle:// or hf://, or a folder "
            f"with a config.json. {f'{hint} ' if hint else ''}Received: {preset!r}"
        )
    if not is_remote:
        _files.read_json(Path(preset) / "config.json")  # raises an error if it is not JSON
    try:
        return _with_head(cls, preset, arguments)
    except (MemoryError, NoHead):
        raise
    except Exception as error:
        if not is_remote or not is_about_access(error):
            raise _explained(error, preset) from error
        unreachable = error
    handle = known[preset]["kaggle_handle"] if preset in known else preset
    folder = cache_folder(handle)
    if (folder / "config.json").is_file():  # copied by hand, without kagglehub's marker files
        try:
            return _with_head(cls, str(folder), arguments)
        except OSError as error:
            unreachable = error
    raise PresetUnavailable(how_to_get(preset, handle, folder, unreachable)) from unreachable


def _explained(error: Exception, preset: str) -> Exception:
    """Turn an error of keras_hub into a one-line error that says what to do."""
    if isinstance(error, ModuleNotFoundError):
        return ModuleNotFoundError(f"This preset needs {error.name}: pip install {error.name}", name=error.name)
    if isinstance(error, (ValueError, ImportError)):
        return error
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return ValueError(
        f"keras_hub cannot read this preset ({reason}). It reads some models of transformers, in safetensors; "
        "`TransferClassifier.from_preset` reads every ViT and DeiT. If a file is damaged, get a new copy. "
        f"Received: {preset!r}"
    )


def _first_line(error: Exception) -> str:
    reason = str(error).split("\n")[0].split(". Make sure")[0]
    return reason if len(reason) <= 200 else f"{reason[:200]}..."


def _folder_of(preset: str) -> Path:
    """The folder with the files of a loaded preset."""
    known = _import_keras_hub().models.Backbone.presets
    handle = known[preset]["kaggle_handle"] if preset in known else preset
    if "://" not in handle:
        return Path(handle)
    folder = cache_folder(handle)
    if handle.startswith("hf://"):
        newest = folder / "refs" / "main"
        return folder / "snapshots" / newest.read_text().strip() if newest.is_file() else folder
    versions = [int(file.name) for file in folder.glob("*") if file.name.isdecimal()]
    return folder / str(max(versions)) if versions else folder  # for a handle without a version


def _has_weights_of_backbone_only(folder: Path) -> bool:
    """Whether a preset describes a head but lacks its weights. keras_hub then silently leaves the head random."""
    return (folder / "task.json").is_file() and not (folder / "task.weights.h5").is_file()


def _with_head(cls: Any, preset: str, arguments: dict[str, Any]) -> Any:
    """keras_hub's `from_preset`, with a clear error if a classifier has no head."""
    wants_own_head = cls.__name__ == TASKS["classifier"] and "num_classes" not in arguments
    wants_its_weights = wants_own_head and arguments.get("load_weights", True)
    try:
        loaded = cls.from_preset(preset, **arguments)
    except TypeError as error:
        if not (wants_own_head and "'num_classes'" in str(error)):
            raise
        raise NoHead(f"The preset is a backbone without a classification head. Received: {preset!r}") from None
    if wants_its_weights and _has_weights_of_backbone_only(_folder_of(preset)):
        raise NoHead(f"The preset has weights for its backbone, but not for its head. Received: {preset!r}")
    return loaded


def is_about_access(error: BaseException | None) -> bool:
    """Whether the cause of an error is the network, a permission or a missing file, not an argument or a bug."""
    while error is not None:
        module = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or module in ("requests", "httpx", "kagglehub", "huggingface_hub"):
            return True
        if "has no config.json" in str(error):  # keras_hub's message if it cannot reach Hugging Face
            return True
        error = error.__cause__ or error.__context__
    return False


def how_to_get(preset: str, handle: str, folder: Path, error: Exception) -> str:
    name = handle.partition("://")[2]
    code = f"import kagglehub; print(kagglehub.model_download('{name}'))"
    if handle.startswith("hf://"):
        code = f"import huggingface_hub; print(huggingface_hub.snapshot_download('{name}'))"
    return (
        f"The preset {preset} is not in the cache {folder} and cannot be downloaded "
        f"({type(error).__name__}: {_first_line(error)}). On a machine with a network, run "
        f'`python -c "{code}"`, which prints a folder. Copy its contents into the cache folder here, or load the '
        "copied folder by its path."
    )


def cache_folder(handle: str) -> Path:
    """The cache folder of a pretrained model on this machine. It may not exist.

    Args:
        handle: `kaggle://owner/model/keras/variation/version` or `hf://owner/model`.

    Returns:
        A folder in `$KAGGLEHUB_CACHE`, by default `~/.cache/kagglehub`, or in Hugging Face's cache.

    Examples:
        >>> cache_folder("kaggle://keras/deit/keras/deit_tiny/1").parts[-6:]
        ('models', 'keras', 'deit', 'keras', 'deit_tiny', '1')
    """
    if handle.startswith("hf://"):
        home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
        root = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
        return root / f"models--{handle.removeprefix('hf://').replace('/', '--')}"
    root = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
    return root / "models" / handle.removeprefix("kaggle://")


def _import_keras_hub() -> Any:
    try:
        _keras_internals.let_tensorflow_in()
        with _tensorflow_log.kept_back():
            import keras_hub
    except ModuleNotFoundError as error:
        if error.name != "keras_hub":
            message = f"keras_hub needs {error.name}, which is not installed: pip install {error.name}"
            raise ModuleNotFoundError(message, name=error.name) from None
        raise ImportError(f"Pretrained models need keras_hub: {install_command('hub')}") from None
    return keras_hub
