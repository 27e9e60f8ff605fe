"""The Python in README and docs runs, from top to bottom of each page."""

import re
from pathlib import Path

import pytest

from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.training import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "```python" in page.read_text()
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)


def test_readme_and_docs_link_to_files_that_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_recipe_in_the_guide_is_one(tmp_path):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (tmp_path / "smooth.json").write_text(re.search(r"```json\n(.*?)```", page, flags=re.DOTALL)[1])
    recipe = load_recipe(tmp_path / "smooth.json")
    assert recipe.name == "smooth"
    model = ViTClassifier.from_preset("vit_mnist_program_p", load_weights=False)
    assert len(recipe.exempt_from_decay(model)) > 0
