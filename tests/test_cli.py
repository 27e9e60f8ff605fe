import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vit_edu
from keras_vit_edu import cli, datasets
from keras_vit_edu._install import install_command
from keras_vit_edu.models.preset import Preset
from tests.support import vit_classifier

pytestmark = pytest.mark.lowest

BACKEND = keras.backend.backend()
BACKENDS = ("tensorflow", "jax", "torch")


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory):
    """An npz file with 300 + 100 images of the bundled sample."""
    sample = datasets.load("mnist-sample")
    file = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(
        file,
        x_train=sample.x_train[:300],
        y_train=sample.y_train[:300],
        x_test=sample.x_test[:100],
        y_test=sample.y_test[:100],
    )
    return file


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A preset folder with a model that trains in no time."""
    folder = tmp_path_factory.mktemp("presets") / "small"
    model = vit_classifier(projection_dim=8, num_layers=1, key_dim=4, head="mean", head_units=(), name="small_model")
    model.save_to_preset(folder)
    return folder


@pytest.fixture
def train(small_mnist, small_model):
    """`keras-vit-edu train`, small, in this process; further arguments follow. Returns the exit status."""

    def run(*arguments):
        return cli.run(["train", "--preset", str(small_model), "--data", str(small_mnist), "--epochs", "1", *arguments])

    return run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_VIT_EDU_DATA", raising=False)


def command(*arguments, **environment):
    """`python -m keras_vit_edu ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "keras_vit_edu", *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": BACKEND, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def one_line(capsys):
    """The one line that a user's mistake gives."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("keras-vit-edu: ")
    return lines[0]


@pytest.mark.quick
def test_train_end_to_end(small_mnist, tmp_path):
    done = command("train", "--data", small_mnist, "--epochs", 1, "--seed", 3, "--run", "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["configuration"]["recipe"]["seed"] == 3
    assert record["backend"] == BACKEND
    assert record["configuration"]["dataset"]["name"] == "mnist"
    assert record["command"][:2] == ["keras-vit-edu", "train"]
    assert 0 <= record["test_accuracy"] <= 1
    assert "4,544,778 parameters" in done.stdout
    assert f"test accuracy {record['test_accuracy']:.4f}" in done.stdout
    assert "out/: accuracy.png, history.csv, loss.png, model.keras" in done.stdout.replace(os.sep, "/")


@pytest.mark.any_backend
def test_the_seed_decides_the_run_and_nothing_else_does(train, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert train("--seed", str(seed), "--run", name) == 0
    losses = [json.loads((tmp_path / name / "run.json").read_text())["test_loss"] for name in "abc"]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.any_backend
def test_a_run_has_a_folder_by_default(train, tmp_path):
    assert train("--dataset", "fashion-mnist") == 0
    record = json.loads((tmp_path / "runs" / f"small-fashion-mnist-{BACKEND}-0" / "run.json").read_text())
    assert record["configuration"]["model"]["config"]["name"] == "small_model"
    assert record["class_names"][9] == "Ankle boot"


@pytest.mark.any_backend
def test_quiet_is_quiet(train, capfd):
    assert train("--quiet") == 0
    assert capfd.readouterr().out == ""


@pytest.mark.any_backend
def test_overwrite(train, capsys):
    assert train("--run", "out", "--quiet") == 0
    assert train("--run", "out", "--quiet") == 2
    assert "out holds a finished run" in one_line(capsys)
    assert train("--run", "out", "--quiet", "--overwrite") == 0


@pytest.mark.any_backend
@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--epochs", "0"], "`epochs` must be a whole number, 1 or more.*epochs=0"),
        (["--epochs", "many"], "'--epochs'"),
        (["--seed", "-1"], "`seed` must be.*seed=-1"),
        (["--seed", str(2**31)], "`seed` must be.*2147483648"),
        (["--learning-rate", "0"], "`learning_rate` must be a number above 0"),
        (["--final-learning-rate", "1e-6"], "`final_learning_rate` requires"),
        (["--augmentation-final-epochs", "2"], "`--augmentation-final-\\*` requires `--augmentation`"),
        (
            ["--augmentation", "digits", "--augmentation-final-strength", "0.2"],
            "requires `--augmentation-final-epochs`",
        ),
        (["--recipe", "programp"], "Did you mean program-p"),
        (["--validation-split", "0.99999"], "`validation_split` must leave images on both sides"),
        (["--no-weight-decay", "biass", "--run", "x"], "names 'biass', and no variable"),
        (["--preset", "vit_mnist_program"], "Did you mean vit_mnist_program_p"),
        (["--dataset", "mnits"], "Did you mean mnist"),
        (["--data", "nowhere.npz"], "There is nothing at nowhere.npz"),
        (["--dataset", "mnist-sample", "--data", "x.npz"], "mnist-sample is bundled"),
        (["--backend", "theano"], "'--backend'.*tensorflow.*jax.*torch"),
        (["--augmentation", "digit"], "There is no augmentation 'digit'. There are: none, digits, clothes"),
        (["--show-augmentation"], "program-p-sample has no augmentation to show"),
        (["--unknown"], "No such option.*--unknown"),
        (["--run", "/proc/run"], "cannot be written"),
    ],
)
def test_a_mistake_gives_one_line_and_2(arguments, complaint, capsys):
    assert cli.run(["train", *arguments]) == 2
    assert re.search(complaint, one_line(capsys))


@pytest.mark.any_backend
def test_override_changes_arguments_of_the_model(train, tmp_path):
    run = tmp_path / "run"
    assert train("--override", "head=sequence", "--override", "head_units=[6]", "--run", str(run)) == 0
    config = json.loads((run / "run.json").read_text())["configuration"]["model"]["config"]
    assert (config["head"], config["head_units"]) == ("sequence", [6])
    assert config["backbone"]["config"]["projection_dim"] == 8


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("head", "takes NAME=VALUE. Received: 'head'"),
        ("=mean", "takes NAME=VALUE. Received: '=mean'"),
        ("heads=3", "do not fit ViTClassifier"),
        ("head=middle", "Received: head='middle'"),
    ],
)
def test_an_override_that_does_not_fit_is_named(train, capsys, override, complaint):
    assert train("--override", override) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.any_backend
def test_show_augmentation_draws_a_sheet_and_trains_nothing(train, capsys):
    assert train("--augmentation", "digits", "--show-augmentation", "--run", "sheets") == 0
    assert capsys.readouterr().out.strip() == str(Path("sheets/augmentation.png"))
    assert os.listdir("sheets") == ["augmentation.png"]


@pytest.mark.any_backend
def test_a_short_run_of_a_recipe_that_weakens_its_augmentation(train, capsys, tmp_path):
    assert train("--recipe", "hybrid", "--warmup-epochs", "0", "--run", str(tmp_path / "a")) == 2
    assert "`augmentation_final_epochs` must not be more than `epochs`" in capsys.readouterr().err
    short = ("--warmup-epochs", "0", "--augmentation-final-epochs", "1", "--augmentation-final-strength", "0.5")
    assert train("--recipe", "hybrid", *short, "--run", str(tmp_path / "a")) == 0
    recipe = json.loads((tmp_path / "a" / "run.json").read_text())["recipe"]
    assert (recipe["augmentation_final_epochs"], recipe["augmentation_final_strength"]) == (1.0, 0.5)


@pytest.mark.any_backend
def test_augmentation_is_kept_in_the_recipe(train):
    assert train("--recipe", "hybrid", "--warmup-epochs", "0", "--no-weight-decay", "bias", "--run", "r") == 2
    arguments = ["--augmentation", "clothes", "--label-smoothing", "0.1", "--run", "run"]
    assert train(*arguments) == 0
    recipe = json.loads(Path("run/run.json").read_text())["recipe"]
    assert recipe["augmentation"]["mirror"] == 0.5


@pytest.mark.any_backend
def test_a_data_file_that_is_none(tmp_path, capsys):
    (tmp_path / "digits.npz").write_text("no zip")
    assert cli.run(["train", "--data", "digits.npz"]) == 2
    assert "digits.npz cannot be read as an npz file" in one_line(capsys)


@pytest.mark.any_backend
def test_an_unknown_verb_gets_a_hint(capsys):
    assert cli.run(["tran"]) == 2
    assert "tran" in one_line(capsys)


@pytest.mark.any_backend
def test_help_and_version(capsys):
    assert cli.run([]) == 0
    assert "train" in capsys.readouterr().out
    assert cli.run(["train", "--help"]) == 0
    assert "--backend" in capsys.readouterr().out
    assert cli.run(["--version"]) == 0
    assert f"keras-vit-edu {keras_vit_edu.__version__}" in capsys.readouterr().out


@pytest.mark.any_backend
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_is_not_installed_says_which_extra(backend):
    if backend in keras_vit_edu._backend.installed_backends():
        # Then hide it, as a process without it would find it.
        program = f"import sys; sys.modules[{backend!r}] = None; sys.argv = ['keras-vit-edu', 'train']; "
        program += f"sys.orig_argv = ['keras-vit-edu', 'train', '--backend', {backend!r}]; "
        program += "from keras_vit_edu.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    else:
        done = command("train", "--backend", backend)
    assert done.returncode == 2
    assert install_command(backend) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.any_backend
def test_ctrl_c_ends_with_one_line(train, monkeypatch, capsys, tmp_path):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", interrupt)
    assert train("--run", "out", "--quiet") == 130
    assert one_line(capsys) == "keras-vit-edu: interrupted"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.any_backend
def test_a_bug_keeps_its_traceback(train, monkeypatch):
    def broken(*arguments, **keywords):
        raise ValueError("a bug of ours")

    monkeypatch.setattr(keras.Model, "fit", broken)
    with pytest.raises(ValueError, match="a bug of ours"):
        train("--quiet")


@pytest.mark.any_backend
def test_the_console_script_is_the_same_command():
    script = Path(sys.executable).with_name("keras-vit-edu")
    done = subprocess.run(
        [script, "--version"], env={**os.environ, "KERAS_BACKEND": BACKEND}, capture_output=True, text=True
    )
    assert done.stdout == command("--version").stdout
    assert BACKEND in done.stdout


@pytest.fixture(scope="module")
def finished_run(small_mnist, small_model, tmp_path_factory):
    """A run folder, finished."""
    run = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--preset", str(small_model), "--data", str(small_mnist), "--epochs", "1", "--quiet"]
    assert cli.run(["train", *arguments, "--run", str(run)]) == 0
    return run


@pytest.mark.any_backend
def test_a_folder_with_brackets_in_its_name(train, capsys, tmp_path):
    assert train("--run", "x[/b] [red]") == 0
    assert "x[/b] [red]" in capsys.readouterr().out
    assert (tmp_path / "x[/b] [red]" / "run.json").is_file()


@pytest.mark.any_backend
def test_a_notice_keeps_the_name_of_the_extra(train, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras_vit_edu.plots", None)
    monkeypatch.delattr(keras_vit_edu, "plots", raising=False)
    assert train("--run", "out") == 0
    assert "no accuracy.png" in capsys.readouterr().out


@pytest.mark.any_backend
def test_evaluate_a_run(finished_run, small_mnist, capsys):
    assert cli.run(["evaluate", str(finished_run), "--data", str(small_mnist)]) == 0
    shown = capsys.readouterr().out
    found = json.loads((finished_run / "evaluate.json").read_text())
    assert found["accuracy"] == pytest.approx(json.loads((finished_run / "run.json").read_text())["test_accuracy"])
    assert found["images"] == 100
    assert cli.run(["evaluate", str(finished_run), "--dataset", "mnist-sample", "--json"]) == 0
    assert json.loads((finished_run / "evaluate.json").read_text()) == found  # other images, another folder
    assert f"test accuracy {found['accuracy']:.4f} +- {found['standard_error']:.4f}" in shown
    for name in ("confusion.png", "mistakes.png"):
        assert (finished_run / name).stat().st_size > 1000


@pytest.mark.any_backend
def test_a_run_is_evaluated_on_its_own_images_wherever_they_are(train, small_mnist, tmp_path, monkeypatch, capsys):
    data = tmp_path / "digits.npz"
    data.write_bytes(small_mnist.read_bytes())
    assert train("--run", "out", "--data", str(data)) == 0
    other = datasets.load("mnist", small_mnist)
    arrays = {name: getattr(other, name) for name in ("x_train", "y_train", "x_test")}
    np.savez(tmp_path / "mnist.npz", **arrays, y_test=9 - other.y_test)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(tmp_path / "mnist.npz"))
    assert cli.run(["evaluate", "out"]) == 0
    accuracy = json.loads(Path("out/run.json").read_text())["test_accuracy"]
    assert json.loads(Path("out/evaluate.json").read_text())["accuracy"] == pytest.approx(accuracy)
    assert cli.run(["evaluate", "out", "--data", "mnist.npz"]) == 0  # others of the same name
    assert json.loads(Path("out/evaluate.json").read_text())["accuracy"] == pytest.approx(accuracy)
    assert json.loads(Path("evaluate-out-mnist/evaluate.json").read_text())["source"].endswith("mnist.npz")
    data.unlink()
    capsys.readouterr()
    assert cli.run(["evaluate", "out"]) == 2
    assert "was trained on different images than those in" in one_line(capsys)
    monkeypatch.setenv("KERAS_VIT_EDU_DATA", str(small_mnist))
    assert cli.run(["evaluate", "out", "--mistakes", "0"]) == 0
    monkeypatch.chdir("out")
    assert cli.run(["evaluate", ".", "--dataset", "mnist-sample"]) == 0
    assert Path("evaluate-out-mnist-sample/evaluate.json").is_file()


@pytest.mark.any_backend
def test_a_model_of_other_classes_is_not_evaluated(capsys):
    """A preset of clothes, for which no dataset is named."""
    assert cli.run(["evaluate", "vit_fashion_hybrid"]) == 2
    complaint = one_line(capsys)
    assert "was trained on different classes than mnist-sample. Choose the test images with --dataset" in complaint
    assert "T-shirt/top, Trouser, Pullover... and 0, 1, 2..." in complaint
    assert not Path("evaluate-vit_fashion_hybrid-mnist-sample").exists()


@pytest.mark.quick
def test_evaluate_a_preset_and_print_json(small_model, tmp_path, capsys):
    assert cli.run(["evaluate", str(small_model), "--json", "--mistakes", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2000
    assert sorted(os.listdir(tmp_path / "evaluate-small-mnist-sample")) == ["confusion.png", "evaluate.json"]


@pytest.fixture
def two_presets(tmp_path, monkeypatch):
    """In the place of the bundled presets: one with weights, one without."""
    known = {
        "description": "A small one.", "parameters": 12_345, "weights_sha256": "0", "weights_dtype": "float16",
        "weights_bytes": 1_234_567, "dataset": {"name": "mnist"}, "test_accuracy": 0.9876,
        "test_standard_error": 0.00111, "test_images": 10_000,
    }  # fmt: skip
    without = {"description": "Only a [b]plan[/b].", "parameters": 7, "weights_sha256": None}
    monkeypatch.setattr(Preset, "presets", {"small": known, "plan": without})


@pytest.mark.any_backend
def test_presets_are_listed_and_those_without_weights_say_so(two_presets, capsys):
    assert cli.run(["presets"]) == 0
    shown = {
        line.split()[1]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:] if "." in line
    }
    assert shown["small"] == "│ small │ A small one. │ 12,345 │ 98.76% ± 0.11 (mnist) │ 1.23 MB float16 │"
    assert shown["plan"] == "│ plan │ Only a [b]plan[/b]. │ 7 │ - │ no weights │"


@pytest.mark.any_backend
def test_presets_as_json(two_presets, capsys):
    assert cli.run(["presets", "--json"]) == 0
    small, plan = json.loads(capsys.readouterr().out)
    assert small == {
        "name": "small", "description": "A small one.", "parameters": 12_345, "test_accuracy": 0.9876,
        "test_standard_error": 0.00111, "test_images": 10_000, "weights_dtype": "float16", "dataset": "mnist",
        "weights_bytes": 1_234_567,
    }  # fmt: skip
    assert (plan["name"], plan["weights_bytes"], plan["test_accuracy"]) == ("plan", None, None)


@pytest.mark.any_backend
def test_every_bundled_preset_is_listed(capsys):
    assert cli.run(["presets", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(Preset.presets)
    assert cli.run(["presets"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in Preset.presets)


@pytest.mark.any_backend
def test_what_cannot_be_evaluated(finished_run, tmp_path, capsys):
    assert cli.run(["evaluate", "vit_mnist_d16"]) == 2
    assert "without weights" in one_line(capsys)
    (tmp_path / "half").mkdir()
    record = json.loads((finished_run / "run.json").read_text())
    (tmp_path / "half" / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    assert cli.run(["evaluate", "half"]) == 2
    assert "not finished" in one_line(capsys)
    (tmp_path / "half" / "run.json").write_text("{}")
    assert cli.run(["evaluate", "half"]) == 2
    assert "damaged" in one_line(capsys)


@pytest.mark.any_backend
def test_a_run_of_another_configuration_names_the_difference(train, monkeypatch, capsys, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", lambda *arguments, **keywords: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train("--run", "out", "--quiet") == 130
    capsys.readouterr()
    assert train("--run", "out", "--quiet", "--seed", "7") == 2
    assert "recipe.seed was 0 and is 7" in one_line(capsys)
    assert train("--run", "out", "--quiet") == 0
