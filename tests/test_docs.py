"""The Python in README and docs runs as it is pasted: block by block, in a process that knows of no backend."""

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keras_vit_edu import cli
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.training import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "```python" in page.read_text()
]


# What is said of layers, models and files is tried on each backend, all else on one.
ON_EACH_BACKEND = ("README.md", "layers.md", "presets.md", "saving.md")


BLOCK = re.compile(r"```python( title=[^\n]*)?\n(.*?)```", flags=re.DOTALL)
CONTINUES = "# continues "  # how a block begins that needs the names or files of one above

# Runs the blocks of pages, page by page, each in a folder of its own. A page is a list of sequences of blocks; each
# sequence has names of its own. Writes what went wrong, by page.
PASTE = """
import json, os, sys, traceback
pages, wrong, start = json.load(sys.stdin), {}, os.getcwd()
for number, (page, sequences) in enumerate(pages.items()):
    os.mkdir(os.path.join(start, str(number)))
    os.chdir(os.path.join(start, str(number)))
    try:
        for sequence in sequences:
            names = {"__name__": "__main__"}
            for block in sequence:
                exec(compile(block, block.splitlines()[0], "exec"), names)
    except BaseException:
        wrong[page] = traceback.format_exc()
with open(os.path.join(start, "wrong.json"), "w") as file:
    json.dump(wrong, file)
"""


def blocks(page):
    """`(title, text)` of each block of Python; the title is empty but where a block needs keras_hub."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([page for page in PAGES if page.name in ON_EACH_BACKEND], id="on each backend"),
        pytest.param(
            [page for page in PAGES if page.name not in ON_EACH_BACKEND], marks=pytest.mark.any_backend, id="others"
        ),
    ],
)
def test_the_examples_of_pages_run_when_pasted(pages, tmp_path):
    """In one process: to start one takes longer than most pages do."""
    pasted = {}
    for page in pages:
        sequences = pasted.setdefault(str(page.relative_to(ROOT)), [])
        for title, text in blocks(page):
            if not title:
                sequences.append([*sequences.pop(), text] if text.startswith(CONTINUES) else [text])
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS")}
    done = subprocess.run(
        [sys.executable, "-c", PASTE],
        input=json.dumps(pasted),
        cwd=tmp_path / "here",
        env={**kept, "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wrong = json.loads((tmp_path / "here" / "wrong.json").read_text())
    assert not wrong, "\n".join(f"{page}: {error}" for page, error in wrong.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_imports_keras_vit_edu_before_keras(page):
    """Before keras_vit_edu, `import keras` fails where TensorFlow is not installed."""
    for _, text in blocks(page):
        imported = [
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        packages = [name.partition(".")[0] for name in imported]
        if "keras" in packages and not text.startswith(CONTINUES):
            assert "keras_vit_edu" in packages[: packages.index("keras")], text


SHELL = re.compile(r"```sh\n(.*?)```", flags=re.DOTALL)


def shell_commands():
    """`(page, arguments)` of every `keras-vit-edu ...` in a shell block."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in SHELL.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|\|\||;|\|", line.partition(" #")[0]):
                    words = shlex.split(command)
                    if words[:1] == ["keras-vit-edu"]:
                        yield page.name, words[1:]


def test_the_commands_in_shell_blocks_parse():
    """Verbs and options are there, and values are of their types; nothing is run."""
    main = pytest.importorskip("typer.main")
    group = main.get_command(cli.app)
    commands = list(shell_commands())
    assert len(commands) >= 20
    for page, words in commands:
        words = [word.replace("$backend", "jax").replace("$seed", "1") for word in words]
        verb = group.commands[words[0]] if words else group
        context = verb.make_context(verb.name, words[1:], parent=group.context_class(group))
        assert context.params is not None, (page, words)


def test_pages_link_to_files_that_exist():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_files_named_where_contributors_look_exist(page):
    for name in re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text(encoding="utf-8")):
        if "NAME" not in name and "VERB" not in name:
            assert (ROOT / name).is_file() or (ROOT / "src" / "keras_vit_edu" / name).is_file(), name


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
