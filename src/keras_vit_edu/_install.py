"""What is not installed, and the command that installs it, as it is to be typed where this package was installed."""

import importlib.metadata
import json
import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "keras-vit-edu"
REQUIRED = ("h5py", "keras", "ml_dtypes", "numpy", "rich", "safetensors")
EXTRA_WITH = {  # module: the extra that brings it
    "typer": "cli", "filelock": "cli", "matplotlib": "cli", "pydot": "cli", "PIL": "cli", "scipy": "cli",
    "keras_hub": "hub", "kagglehub": "hub",
    "tensorflow": "tensorflow", "torch": "torch", "jax": "jax",
}  # fmt: skip
MEANT_BY_SHELLS = frozenset('"$`\\!')  # inside double quotes


def install_command(*extras: str) -> str:
    """The `pip install` that brings extras of this package.

    A package installed from a folder, a clone say, may not be on an index. While that folder is there, the command
    names it; as `.` if it is the working directory.

    Args:
        extras: names of extras, such as `"hub"`.

    Examples:
        >>> install_command("jax", "hub")  # doctest: +SKIP
        'pip install ".[jax,hub]"'
    """
    folder = source_folder()
    wanted = f"{_shortest(folder) if folder else DISTRIBUTION}[{','.join(extras)}]"
    quoted = shlex.quote(wanted) if os.name == "posix" and not MEANT_BY_SHELLS.isdisjoint(wanted) else f'"{wanted}"'
    return f"pip install {quoted}"


def what_is_missing(error: ImportError) -> str | None:
    """A line about a module that is not installed and how to install it; None if it is none that we know."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module in REQUIRED:
        return f"{module} is not installed: pip install {module}"
    return f"{module} is not installed: {install_command(EXTRA_WITH[module])}" if module in EXTRA_WITH else None


def source_folder() -> Path | None:
    """The folder with this package's project, if it runs from there or was installed from there; else None."""
    clone = Path(__file__).resolve().parents[2]  # of src/keras_vit_edu/_install.py
    for folder in (clone, _installed_from()):
        if folder is not None and (folder / "pyproject.toml").is_file():
            return folder
    return None


def _installed_from() -> Path | None:
    """The folder that was given to `pip install`, as `direct_url.json` beside the package tells (PEP 610)."""
    try:
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        origin = json.loads(text or "{}")
        address = urlsplit(origin["url"])
        return Path(url2pathname(address.path)) if "dir_info" in origin and address.scheme == "file" else None
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _shortest(folder: Path) -> str:
    try:
        return "." if folder.samefile(Path.cwd()) else str(folder)
    except OSError:  # the working directory was removed
        return str(folder)
