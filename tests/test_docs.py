"""The Python in README and docs runs, from top to bottom of each page."""

import re
import runpy
from pathlib import Path

import pytest

from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.training import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "```python" in page.read_text()
]


# What is said of layers, models and files is tried on each backend, all else on one.
ON_EACH_BACKEND = ("README.md", "layers.md", "presets.md", "saving.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[] if page.name in ON_EACH_BACKEND else [pytest.mark.any_backend],
            id=str(page.relative_to(ROOT)),
        )
        for page in PAGES
    ],
)
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


# The cards of presets with weights. -----------------------------------------------------------------------------------

CARDS = runpy.run_path(str(ROOT / "tools" / "model_cards.py"))
METADATA = {
    "description": "A small one.",
    "parameters": 12_345,
    "class_names": ["cat", "dog"],
    "input": "28x28 grey images",
    "weights_sha256": "a1b2",
    "weights_dtype": "float16",
    "weights_bytes": 1_234_567,
    "dataset": {"name": "mnist", "sha256": "c3d4", "images": {"train": 54_000, "validation": 6_000, "test": 10_000}},
    "recipe": {"name": "hybrid", "optimizer": "lion"},
    "seed": 17,
    "runs": 3,
    "epochs": 41,
    "training_seconds": 2_718.28,
    "device": "an abacus",
    "versions": {"keras": "3.15.9", "torch": "2.77"},
    "test_accuracy": 0.9876,
    "test_standard_error": 0.00111,
    "test_right": 9_876,
    "test_images": 10_000,
    "test_right_by_weights_dtype": {"float32": 9_874, "float16": 9_876},
    "sample_right": 1_983,
    "sample_images": 2_000,
    "validation_accuracy": 0.9912,
    "command": "keras-vit-edu train --seed 17",
}


def test_the_page_of_presets_is_what_their_metadata_make():
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    assert page == CARDS["page"](Preset.presets), "run: python tools/model_cards.py"


def test_a_card_says_what_the_metadata_say():
    card = CARDS["card"]("small", METADATA)
    for part in (
        "A small one.", "12,345", "cat, dog", "28x28 grey", "a1b2", "1.23 MB of float16", "54,000 images", "6,000 more",
        "c3d4", "`hybrid`", 'optimizer "lion"', "seed 17", "runs: 3", "41 epochs", "2,718 s", "an abacus",
        "keras 3.15.9", "torch 2.77", "98.76% ± 0.11: 9,876 of 10,000 right", "float32: 9,874 right", "1,983 of 2,000",
        "99.12%", "keras-vit-edu train --seed 17", 'from_preset("small")',
    ):  # fmt: skip
        assert part in card, part
    assert "bundled sample" not in CARDS["card"]("clothes", {**METADATA, "sample_right": None})


def test_the_table_has_every_preset_and_says_which_have_no_weights():
    plan = {"description": "A plan.", "parameters": 7, "weights_sha256": None}
    page = CARDS["page"]({"small": METADATA, "plan": plan})
    assert "| [small](#small) | A small one. | 12,345 | 98.76% ± 0.11 | 1.23 MB of float16 |" in page
    assert "| plan | A plan. | 7 |  | none |" in page
    assert "## plan" not in page
