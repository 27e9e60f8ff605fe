"""The guides run, with the blocks that need keras_hub and with the commands, on presets of random weights."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("keras_hub", reason="the guides load presets of keras_hub", exc_type=ImportError)
pytest.importorskip("typer")

from keras_vit_edu import cli
from tests.transfer.hub_cache import fill_cache

pytestmark = pytest.mark.hub

ROOT = Path(__file__).parents[2]
DEIT_TINY = "deit_tiny_distilled_patch16_224_imagenet"
BLOCK = re.compile(r"```(python|sh)( title=\"with keras_hub[^\n]*)?\n(.*?)```", flags=re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory; nothing is fetched from, or kept, elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("KERAS_VIT_EDU_CACHE", str(tmp_path / "features"))
    return tmp_path


def small_deit():
    """A DeiT of 32 x 32 pixels that learns in a second, as a classifier of ImageNet."""
    import keras_hub

    models = keras_hub.models
    backbone = models.DeiTBackbone(
        image_shape=(32, 32, 3), patch_size=16, num_layers=2, num_heads=2, hidden_dim=12, intermediate_dim=24
    )
    converter = keras_hub.layers.DeiTImageConverter(image_size=(32, 32), scale=1 / 127.5, offset=-1)
    preprocessor = models.DeiTImageClassifierPreprocessor(converter)
    return models.DeiTImageClassifier(backbone=backbone, num_classes=1000, preprocessor=preprocessor)


def blocks(page):
    """`(language, title, text)` of each block of code."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert any(title for _, title, _ in found)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five runs, and each compiles on JAX
def test_the_guide_from_photographs_to_a_model_runs(here):
    fill_cache(here / "hub", DEIT_TINY, small_deit())
    names = {}
    for language, _, text in blocks("docs/fine-tuning.md"):
        if language == "python":
            exec(compile(text, "fine-tuning.md", "exec"), names)
        for line in text.splitlines() if language == "sh" else ():
            program, *arguments = shlex.split(line, comments=True)
            if program == "keras-vit-edu":
                assert cli.run(arguments) == 0, line


@pytest.mark.slow
def test_open_the_box_runs_at_the_real_size(here):
    fill_cache(here / "hub", DEIT_TINY)
    names = {}
    for language, _, text in blocks("docs/open-the-box.md"):
        if language == "python":
            exec(compile(text, "open-the-box.md", "exec"), names)
    assert [tuple(of_a_block.shape) for of_a_block in names["scores"]] == [(2, 3, 198, 198)] * 12
    assert names["maps"].shape == (2, 3, 14, 14)
    assert names["wide"].backbone.grid_size == (10, 20)


def test_the_example_of_the_readme_runs(here):
    fill_cache(here / "hub", DEIT_TINY, small_deit())
    rng = np.random.default_rng(0)
    for file in ("photo.jpg", *(f"photographs/{name}/{i}.png" for name in ("cat", "dog") for i in range(4))):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), "uint8")).save(file)
    ((_, _, text),) = [block for block in blocks("README.md") if block[1]]
    exec(compile(text, "README.md", "exec"), {})
