"""Find which package is missing, and the `pip` command that installs it."""

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
    """The `pip install` command for extras of this package.

    A package that was installed from a folder, such as a clone, may not be on an index. While the folder exists, the
    command names the folder, or `.` if it is the working directory.

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
    """A line that names the missing module and how to install it; None for a module that we do not know."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module in REQUIRED:
        return f"{module} is not installed: pip install {module}"
    return f"{module} is not installed: {install_command(EXTRA_WITH[module])}" if module in EXTRA_WITH else None


def source_folder() -> Path | None:
    """The project folder, if the package runs from it or was installed from it; else None."""
    clone = Path(__file__).resolve().parents[2]  # of src/keras_vit_edu/_install.py
    for folder in (clone, _installed_from()):
        if folder is not None and (folder / "pyproject.toml").is_file():
            return folder
    return None


def _installed_from() -> Path | None:
    """The folder that was given to `pip install`, from `direct_url.json` beside the package (PEP 610)."""
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
