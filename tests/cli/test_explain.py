import numpy as np
import pytest

from keras_vit_edu import cli, datasets
from keras_vit_edu.explain import explain
from keras_vit_edu.models import ViTClassifier
from keras_vit_edu.transfer import Preprocessing, TransferClassifier
from tests.explain.small import small_classifier

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.any_backend


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two digits, a file that is none, and a classifier of photographs with a photograph."""
    monkeypatch.chdir(tmp_path)
    sample = datasets.load("mnist-sample")
    (tmp_path / "digits").mkdir()
    for i in (3, 7):
        Image.fromarray(255 - sample.x_test[i, :, :, 0]).resize((140, 140)).save(tmp_path / "digits" / f"{i}.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype("uint8")).save(tmp_path / "photo.png")
    preprocessing = Preprocessing((8, 12), scale=1 / 255)
    TransferClassifier(small_classifier(), preprocessing, ["a", "b", "c", "d"]).save(tmp_path / "own.zip")
    return tmp_path


def test_digits(here, capsys):
    assert cli.run(["explain", "digits", "--method", "rollout", "--method", "relevance", "--target", "4"]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "3.png: " in printed
    out = here / "explanation"
    written = sorted(file.name for file in out.iterdir())
    assert written == [
        "distances.png", "explanation.npz", "heads-00.png", "heads-01.png", "maps.png", "positions.png",
    ]  # fmt: skip
    assert all(name in printed for name in written)
    with np.load(out / "explanation.npz") as arrays:
        model = ViTClassifier.from_preset("vit_mnist_pure")
        expected = explain(model, arrays["images"], "relevance", target=4)
        np.testing.assert_array_equal(arrays["map_relevance"], expected.map)
        np.testing.assert_array_equal(arrays["logits"], expected.output)
        assert arrays["scores_5"].shape == (2, 8, 49, 49)
        assert [name.split("/")[-1] for name in arrays["files"]] == ["3.png", "7.png"]
    with Image.open(out / "maps.png") as picture:
        assert picture.width > picture.height


def test_photographs_by_the_names_of_their_classes(here):
    words = ["photo.png", "--model", "own.zip", "--method", "occlusion", "--target", "c", "--against", "a"]
    assert cli.run(["explain", *words, "--out", "found"]) == 0
    with np.load(here / "found" / "explanation.npz") as arrays:
        classifier = TransferClassifier.load("own.zip")
        expected = explain(classifier, "photo.png", "occlusion", target=2, against=0)
        np.testing.assert_allclose(arrays["map_occlusion"], expected.map, atol=1e-6)


def test_a_file_that_cannot_be_read_is_reported_and_the_others_explained(here, capsys):
    (here / "digits" / "5.png").write_bytes(b"no picture")
    assert cli.run(["explain", "digits", "--method", "rollout"]) == 1
    assert "5.png" in capsys.readouterr().err
    assert (here / "explanation" / "heads-01.png").is_file()
    assert not (here / "explanation" / "heads-02.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.png"], "There is no such file"),
        (["photo.png"], "Nothing stands out from the paper"),
        (["digits", "--method", "rolout"], "There is no method 'rolout'. There are attention, rollout"),
        (["digits", "--target", "12"], "`target` must be 0 to 9"),
        (["digits", "--target", "cat"], "`target` must be a class: 0, 1, 2"),
        (["digits", "--model", "cnn_mnist"], "Only the attention of `MyMultiHeadAttention`"),
        (["digits", "--out", "photo.png"], "The results need a folder. Received: photo.png, a file"),
        (["digits", "--fallback"], "--fallback works only with a preset of keras_hub"),
        (["digits", "--model", "vit_mnist_d16"], "configuration without weights"),
    ],
)
def test_a_mistake_is_one_line_and_2(here, words, message, capsys):
    assert cli.run(["explain", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert message in error
