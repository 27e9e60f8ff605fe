"""What `pyproject.toml` declares is what the package imports, and what `tox.ini` tests at its lowest."""

import ast
import configparser
import re
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_backend
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DISTRIBUTIONS = {"PIL": "pillow"}  # of modules that are called otherwise than what brings them
# Each is asked for with its own `pip install`, where somebody brings a file that needs it.
OF_THE_USER = {"pillow-heif", "huggingface-hub"}
BACKENDS = {"tensorflow", "torch", "jax"}


def floors(*extras):
    """The lowest version of each requirement, by name."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return dict(re.match(r"([\w-]+)>=([\d.]+)", each).groups() for some in lists for each in some)


def imported():
    """The distributions that the package imports from."""
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in {module.partition(".")[0] for module in modules} - {"keras_vit_edu", ""}:
                if module not in sys.stdlib_module_names:
                    yield DISTRIBUTIONS.get(module, module).replace("_", "-")


def test_every_import_is_declared():
    assert set(imported()) - OF_THE_USER <= set(floors(*BACKENDS, "hub", "cli"))


def test_everything_declared_is_imported():
    assert set(floors(*BACKENDS, "hub", "cli")) <= set(imported()) | {"pydot"}  # Keras imports pydot


def test_the_lowest_versions_are_those_that_are_tested():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", tox["testenv:lowest"]["deps"], re.MULTILINE))
    declared = floors("cli")
    for name in BACKENDS:
        tested.pop(name, None)
    assert tested.keys() == declared.keys()
    for name, floor in declared.items():
        assert [*map(int, tested[name].split("."))][: floor.count(".") + 1] == [*map(int, floor.split("."))], name


def test_the_next_major_version_of_keras_is_not_taken_unseen():
    assert "keras>=3.15,<4" in PROJECT["dependencies"]
