"""No file of the package imports, directly or by others, a file that imports it; not inside functions either."""

import ast
import graphlib
from pathlib import Path

import pytest

import keras_vit_edu

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]
PACKAGE = Path(keras_vit_edu.__file__).parent
FILES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def imported(module):
    """The modules of the package that a module of it imports."""
    for node in ast.walk(ast.parse(FILES[module].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_there_is_no_import_circle():
    graph = {module: (set(imported(module)) & FILES.keys()) - {module} for module in FILES}
    assert graph["keras_vit_edu.parity"]
    graphlib.TopologicalSorter(graph).prepare()  # an error names the circle
