"""Get the files of a handle `hf://owner/model` from Hugging Face's cache or the network."""

import contextlib
from pathlib import Path
from typing import Any

from keras_vit_edu._files import read_json
from keras_vit_edu.transfer import hub, transformers_folder, transformers_images, transformers_weights

HANDLE = "hf://"


def folder_of_transformers(preset: str | Path) -> Path | None:
    """The folder of a preset that transformers wrote; None for other presets.

    For a handle of a ViT or DeiT the needed files are downloaded. For other models only `config.json` is downloaded.

    Args:
        preset: a folder, a name, or a handle.

    Raises:
        ImportError: for `hf://`, if huggingface_hub is not installed.
        PresetUnavailable: a `ValueError`, for `hf://`, if the model is not in the cache and cannot be downloaded.
        ValueError: if `config.json` is not JSON, or if the handle is malformed.
    """
    if not str(preset).startswith(HANDLE):
        return Path(preset) if transformers_folder.model_type_of(preset) is not None else None
    handle = str(preset)
    copied = hub.cache_folder(handle)  # a folder that was copied by hand
    config = copied / "config.json" if (copied / "config.json").is_file() else _fetched(handle, "config.json")
    folder = config.parent
    model_type = transformers_folder.model_type_of(folder)
    if model_type in transformers_folder.PREFIX_TOKENS and folder != copied:
        _fetch_if_there(handle, transformers_images.FILE)
        if not _fetch_if_there(handle, transformers_weights.WEIGHTS):
            _fetch_shards(handle)
    return folder if model_type is not None else None


def _fetch_shards(handle: str) -> None:
    index = _fetch_if_there(handle, transformers_weights.INDEX)
    if index is not None:
        content = read_json(index)
        named = content.get("weight_map") if isinstance(content, dict) else None
        for file in sorted(
            {file for file in named.values() if isinstance(file, str)} if isinstance(named, dict) else ()
        ):
            _fetch_if_there(handle, file)


def _fetch_if_there(handle: str, name: str) -> Path | None:
    """Download a file if the model has it; else None. (Errors about missing files come when the folder is read.)"""
    with contextlib.suppress(hub.PresetUnavailable):
        return _fetched(handle, name)
    return None


def _fetched(handle: str, name: str) -> Path:
    """A file of the model, from the cache or else from the network."""
    download = _import_huggingface_hub()
    folder = hub.cache_folder(handle)
    try:
        return Path(download(repo_id=handle.removeprefix(HANDLE), filename=name, cache_dir=folder.parent))
    except Exception as error:
        if type(error).__name__ == "HFValidationError":
            raise ValueError(f"A handle must have the form hf://owner/model. Received: {handle!r}") from None
        if not hub.is_about_access(error):
            raise
        raise hub.PresetUnavailable(hub.how_to_get(handle, handle, folder, error)) from error


def _import_huggingface_hub() -> Any:
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise ImportError(f"hf:// needs {error.name}: pip install {error.name}") from None
    return hf_hub_download
