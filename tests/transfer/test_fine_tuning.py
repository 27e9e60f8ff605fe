import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from keras_vit_edu.datasets import Augmentation, scan_folder
from keras_vit_edu.layers import RelativePositionBias
from keras_vit_edu.models import ViTBackbone, ViTClassifier
from keras_vit_edu.training import RunFolder, RunFolderError, TrainingFailed
from keras_vit_edu.transfer import (
    FineTuning,
    Preprocessing,
    TransferClassifier,
    add_lora,
    fine_tune,
)
from tests.support import BACKEND, opened_vit, to_numpy
from tests.transfer.small import PREPROCESSING, SIZES, changed, classifier, coloured, weights

pytestmark = pytest.mark.any_backend

DATA = coloured()
QUICK = {"probe_epochs": 2, "epochs": 2, "batch_size": 12, "learning_rate": 1e-3}


@pytest.fixture
def tune(tmp_path):
    """Fine-tunes the small classifier, or the one given; `(model, record)`."""

    def call(model=None, data=DATA, validation=None, run=None, **changes):
        of_call = {name: changes.pop(name) for name in ("class_weights", "callbacks", "afterwards") if name in changes}
        model = model or classifier()
        options = FineTuning(**{**QUICK, **changes})
        arguments = {"cache": tmp_path / "features", "console": Console(quiet=True), **of_call}
        if run is None:
            return model, fine_tune(model, PREPROCESSING, data, validation, options, **arguments)
        with RunFolder(run) as folder:
            return model, fine_tune(model, PREPROCESSING, data, validation, options, folder, **arguments)

    return call


def layers(paths):
    return {path.split("/")[1] for path in paths}


@pytest.mark.parametrize(
    ("changes", "phases", "moved"),
    [
        ({"method": "probe"}, ["probe"], {"logits"}),
        ({"method": "lp-ft", "blocks": 1}, ["probe", "lp-ft"], {"logits", "encoder_norm", "transformer_block_2"}),
        ({"method": "lp-ft", "blocks": 0}, ["probe", "lp-ft"], {"logits"}),
        ({"method": "lora"}, ["probe", "lora"], {"logits", *(f"transformer_block_{i}" for i in range(3))}),
        (
            {"method": "full"},
            ["full"],
            {"logits", "encoder_norm", "patch_encoder", *(f"transformer_block_{i}" for i in range(3))},
        ),
    ],
)
def test_each_method_trains_its_layers(tune, changes, phases, moved):
    model = classifier()
    before = weights(model)
    model, record = tune(model, **changes)
    assert [phase["name"] for phase in record["phases"]] == phases
    assert layers(changed(model, before)) == moved
    assert len(record["history"]["loss"]) == 2 * len(phases)
    assert record["status"] == "finished"
    if changes["method"] == "lora":  # plain weights: kernels of query and value, no more
        kernels = {path.split("/")[-2] for path in changed(model, before) if "block" in path}
        assert kernels == {"q_dense", "v_dense"}


def test_only_kernels_decay(tune):
    model = classifier(position_bias=RelativePositionBias(locality=1.0))
    before = {weight.path: to_numpy(weight) for weight in model.weights}
    tune(model, method="full", learning_rate=1e-8, weight_decay=1e6, layer_decay=1.0)  # Adam's own steps are tiny
    smaller = {w.path for w in model.backbone.weights if np.abs(to_numpy(w) - before[w.path]).max() > 1e-4}
    assert smaller == {weight.path for weight in model.backbone.weights if weight.path.endswith("kernel")}


def test_it_learns(tune):
    for method in ("probe", "lp-ft", "lora", "full"):
        _, record = tune(method=method, probe_epochs=10, epochs=5)
        assert record["validation_accuracy"] >= (0.5 if method == "full" else 0.75), method  # 1/3 by chance
        assert record["history"]["loss"][-1] < record["history"]["loss"][0], method


def test_in_float16_the_loss_is_scaled_around_the_optimizers_of_the_layers(tune):
    model, record = tune(classifier(dtype="mixed_float16"))
    _, in_float32 = tune()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert len(model.optimizer.inner_optimizer.optimizers) == 5  # head, three blocks, patches
    np.testing.assert_allclose(record["history"]["loss"], in_float32["history"]["loss"], atol=2e-3)


def test_a_model_with_a_fit_of_its_own_is_scaled_too(tune):
    class FitsItself(ViTClassifier):  # as keras_hub's classifiers do
        def fit(self, *arguments, **more):
            raise AssertionError

    class Optimizers(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            kinds.append(type(self.model.optimizer))

    kinds = []
    backbone = ViTBackbone((16, 16, 3), 8, **SIZES, dtype="mixed_float16")
    tune(FitsItself(backbone, 3, head="token", head_units=()), method="full", callbacks=[Optimizers()])
    assert [issubclass(kind, keras.optimizers.LossScaleOptimizer) for kind in kinds] == [True]


def test_the_tuning_begins_where_the_probe_ends(tune):
    model = classifier()
    tune(model, method="probe")
    probed = to_numpy(model.get_layer("logits").kernel)
    again = classifier()
    tune(again, method="lp-ft", blocks=0, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    np.testing.assert_allclose(to_numpy(again.get_layer("logits").kernel), probed, atol=1e-9)


def test_a_probe_is_the_training_of_a_frozen_model(tune):
    # The same steps taken by Keras on the whole model, the backbone frozen, dropout off.
    quiet = {"dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    model, record = tune(classifier(**quiet), method="probe", probe_epochs=1, validation_split=0, batch_size=36)
    theirs = classifier(**quiet)
    head = theirs.get_layer("logits")
    for weight in head.weights:
        weight.assign(np.zeros(weight.shape))
    theirs.backbone.trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.0), loss)  # the first step of a cosine is at its height
    measured = theirs.train_on_batch(PREPROCESSING(DATA[0]), DATA[1])
    assert record["history"]["loss"][0] == pytest.approx(float(np.log(3)), abs=1e-5) == pytest.approx(float(measured))
    np.testing.assert_allclose(to_numpy(model.get_layer("logits").kernel), to_numpy(head.kernel), atol=1e-5)


def test_probe_tune_and_probe_again(tune):
    model = classifier()
    tune(model, method="probe")
    tune(model, method="lp-ft", new_head=False, blocks=1)
    before = weights(model)
    tune(model, method="probe")
    assert layers(changed(model, before)) == {"logits"}
    assert tune(model, method="full", blocks=0)[1]["phases"][0]["trainable"] == 39


def test_a_new_head_begins_at_zero_and_an_old_one_where_it_is(tune):
    model = classifier()
    kernel = to_numpy(model.get_layer("logits").kernel)
    still = {"method": "full", "blocks": 0, "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    tune(model, **still, new_head=False)
    np.testing.assert_allclose(to_numpy(model.get_layer("logits").kernel), kernel, atol=1e-9)
    tune(model, **still)
    np.testing.assert_allclose(to_numpy(model.get_layer("logits").kernel), 0, atol=1e-9)


def test_the_first_step_of_a_warm_up_moves_the_weights(tune):
    model, _ = tune(
        method="full", epochs=1, batch_size=36, validation_split=0, warmup_epochs=0.9
    )  # one step, of warm-up
    assert to_numpy(model.get_layer("logits").kernel).any()  # which was 0


def test_augmentation_is_of_the_tuning_alone(tune):
    _, clean = tune(augmentation=None)
    _, varied = tune(augmentation=Augmentation(mirror=0.5, rotation=20))
    assert clean["history"]["loss"][:2] == varied["history"]["loss"][:2]
    assert abs(clean["history"]["loss"][2] - varied["history"]["loss"][2]) > 1e-5


def test_augmentation_that_mixes_labels(tune):
    _, record = tune(method="full", augmentation=Augmentation(mixup=0.2), label_smoothing=0.1)
    assert np.isfinite(record["history"]["loss"]).all()


def test_class_weights_change_the_loss(tune):
    images, labels = DATA
    few = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1), np.flatnonzero(labels == 2)[:3]])
    unbalanced = images[few], labels[few]
    sure = {"method": "probe", "validation_split": 0, "probe_epochs": 30}
    balanced, _ = tune(data=unbalanced, **sure)
    plain, _ = tune(data=unbalanced, class_weights=None, **sure)
    given, _ = tune(data=unbalanced, class_weights={0: 0.75, 1: 0.75, 2: 3.0}, **sure)  # 27 / (3 * 12), 27 / (3 * 3)
    kernels = [to_numpy(model.get_layer("logits").kernel) for model in (balanced, plain, given)]
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_the_run_folder_says_what_happened(tune, tmp_path):
    _, record = tune(run=tmp_path / "run", method="lp-ft")
    names = {file.name for file in (tmp_path / "run").iterdir() if not file.name.startswith(".")}
    wanted = {"run.json", "history.csv", "accuracy.png", "loss.png", "summary.txt", "checkpoint"}
    assert names == wanted | {"evaluate.json", "confusion.png", "mistakes.png"}
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert written == record
    assert written["images"] == {"train": 30, "validation": 6}
    assert written["fine_tuning"]["method"] == "lp-ft"
    assert [phase["epochs"] for phase in written["phases"]] == [2, 2]
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert written["validation_accuracy"] == pytest.approx(float(rows[-1]["val_accuracy"]), abs=1e-6)
    assert written["validation_loss"] == pytest.approx(float(rows[-1]["val_loss"]), abs=1e-5)


def test_validation_of_its_own(tune):
    held = coloured(9, seed=1)
    model, record = tune(validation=held)
    right = model.predict(PREPROCESSING(held[0]), verbose=0).argmax(axis=1) == held[1]
    assert record["validation_accuracy"] == pytest.approx(right.mean())
    assert record["images"] == {"train": 36, "validation": 9}


def test_a_folder_and_the_same_images_as_arrays(tune, tmp_path):
    images, labels = DATA
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "photos" / f"class {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"class {label}" / f"{i:02}.png")
    in_order = np.argsort(labels, kind="stable")
    _, of_arrays = tune(data=(images[in_order], labels[in_order]))
    _, of_folder = tune(data=scan_folder(tmp_path / "photos"))
    assert of_folder["history"]["loss"] == of_arrays["history"]["loss"]
    assert of_folder["class_names"] == ["class 0", "class 1", "class 2"]


def test_copies_of_an_image_stay_on_one_side(tune):
    images, labels = coloured(30)
    twice = np.repeat(images, 2, axis=0), np.repeat(labels, 2)
    found = []
    _, record = tune(data=twice, method="probe", afterwards=lambda evaluation: found.append(evaluation) or {})
    assert record["images"] == {"train": 48, "validation": 12}  # 2 of 10 originals of each class, twice
    np.testing.assert_array_equal(np.bincount(found[0].labels), [4, 4, 4])
    pairs = found[0].probabilities.reshape(6, 2, 3)
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], atol=1e-6)


def test_a_validation_of_images_that_are_in_training_draws_a_warning(tune):
    held = coloured(9, seed=1)
    held[0][:2] = DATA[0][:2]
    with pytest.warns(UserWarning, match="2 of the validation's images are in training too"):
        tune(validation=held, method="probe", probe_epochs=1)


def test_images_of_any_size_in_a_list(tune):
    images, labels = coloured(12)
    several = [image[: 20 - i % 3, i % 4 :] for i, image in enumerate(images)]
    assert np.isfinite(tune(data=(several, labels))[1]["history"]["loss"]).all()


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


# In the first phase, at its end, in the second one.
@pytest.mark.parametrize(("method", "epoch"), [("lp-ft", 0), ("lp-ft", 1), ("lora", 2)])
def test_an_interrupted_run_ends_the_same(tune, tmp_path, method, epoch):
    expected, record = tune(method=method)
    with pytest.raises(KeyboardInterrupt):
        tune(method=method, run=tmp_path / "run", callbacks=[Stop(epoch)])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    model, again = tune(method=method, run=tmp_path / "run")
    for mine, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again["history"]["loss"] == record["history"]["loss"]
    assert len(again["sessions"]) == 2
    assert {"stopped", "reason"}.isdisjoint(again)


def test_a_run_from_before_cropping_is_resumed(tune, tmp_path):
    options = {"method": "full", "augmentation": {"rotation": 5}}
    with pytest.raises(KeyboardInterrupt):
        tune(**options, run=tmp_path / "run", callbacks=[Stop(0)])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    del record["configuration"]["fine_tuning"]["augmentation"]["crop"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    _, again = tune(**options, run=tmp_path / "run")
    assert (again["status"], len(again["sessions"])) == ("finished", 2)


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt("Ctrl-C")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_interruption_within_a_step_leaves_the_weights_of_the_last_epoch(tune, tmp_path, monkeypatch, method):
    optimizer = keras.optimizers.AdamW if method == "lora" else keras.optimizers.MultiOptimizer
    monkeypatch.setattr(optimizer, "apply", interrupt)  # on JAX and TensorFlow: while the step is compiled
    model = classifier()
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        tune(model, run=tmp_path / "run", method=method)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert layers(changed(model, before)) <= {"logits"}  # zeros: a new head
    assert np.isfinite(model.predict(np.zeros((2, 16, 16, 3)), verbose=0)).all()


def test_a_callback_that_stops_a_phase_is_refused_and_the_run_can_go_on(tune, tmp_path):
    with pytest.raises(ValueError, match=r"must not stop a phase early.* stopped after 1 of 2 epochs"):
        tune(run=tmp_path / "stopped", callbacks=[StopTraining(2)])
    gone_on, record = tune(run=tmp_path / "stopped")
    assert record["epochs_done"] == 4
    at_once, _ = tune(run=tmp_path / "at-once")
    assert list(weights(gone_on).values()) == list(weights(at_once).values())


def test_a_failed_afterwards_is_repeated_on_resume(tune, tmp_path):
    def fail(evaluation):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        tune(run=tmp_path / "run", afterwards=fail)
    _, record = tune(run=tmp_path / "run", afterwards=lambda evaluation: {"images_seen": len(evaluation.labels)})
    assert (record["status"], record["images_seen"]) == ("finished", 6)


def test_what_was_learned_is_kept_before_anything_is_drawn_and_no_picture_grows_with_the_classes(tune, tmp_path):
    data = coloured(90, 45)
    there = []

    def keep(evaluation):
        there.extend(file.name for file in (tmp_path / "run").iterdir())
        return {}

    model = classifier(45)
    with pytest.warns(UserWarning, match="90 of the validation's images are in training too"):
        tune(model, data, data, run=tmp_path / "run", method="probe", probe_epochs=1, afterwards=keep)
    assert "history.csv" in there
    assert not [name for name in there if name.endswith(".png")]
    with Image.open(tmp_path / "run" / "confusion.png") as picture:
        assert max(picture.size) <= (2.2 + 0.5 * 40) * 120  # inches of 40 classes, and dots per inch


def test_another_run_in_the_folder_is_refused(tune, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(run=tmp_path / "run", callbacks=[Stop(0)])
    with pytest.raises(RunFolderError, match=r"another run: fine_tuning.epochs was 2 and is 3"):
        tune(run=tmp_path / "run", epochs=3)
    with pytest.raises(RunFolderError, match=r"images.train was"):
        tune(run=tmp_path / "run", data=coloured(seed=1))


def test_a_refused_call_does_not_change_the_head(tune, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tune(run=tmp_path / "run", afterwards=interrupt)
    model = classifier()
    before = weights(model)
    with pytest.raises(RunFolderError, match="another run"):
        tune(model, run=tmp_path / "run", seed=1)
    assert weights(model) == before
    with_lora = add_lora(model)
    before = weights(with_lora)
    with pytest.raises(ValueError, match="Call `merge_lora` first"):
        tune(with_lora)
    assert weights(with_lora) == before


def test_a_model_that_was_compiled_with_a_loss_of_its_own(tune):
    model = classifier()
    model.compile("adam", loss=lambda true, logits: keras.ops.mean(logits))
    assert tune(model)[1]["epochs_done"] == 4


@pytest.mark.parametrize("method", ["lp-ft", "lora"])
def test_a_loss_that_is_no_number_gives_the_last_good_weights_back(tune, tmp_path, method):
    spoiled = Spoil(epoch=3)
    model = classifier()
    with pytest.raises(TrainingFailed, match="loss is nan"):
        tune(model, method=method, run=tmp_path / "run", callbacks=[spoiled])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    good = classifier()
    with pytest.raises(ValueError, match="must not stop a phase"):
        tune(good, method=method, callbacks=[StopTraining(2)])
    for mine, theirs in zip(model.get_weights(), good.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


class Spoil(keras.callbacks.Callback):
    """Makes the head NaN at the beginning of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            head = self.model.get_layer("logits")
            head.bias.assign(np.full(head.bias.shape, np.nan))


class StopTraining(keras.callbacks.Callback):
    """Ends `fit` after an epoch, without an error."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.stop_training = True


def test_a_rate_that_is_too_high_is_reported(tune):
    model = classifier()
    with pytest.raises(TrainingFailed, match="loss is"):
        tune(model, method="full", learning_rate=1e30, global_clipnorm=None, warmup_epochs=0.0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


# In processes of their own. -------------------------------------------------------------------------------------------

OPTIONS = {"probe_epochs": 3, "epochs": 6, "batch_size": 12, "learning_rate": 1e-3, "label_smoothing": 0.1}


def start(run, options=OPTIONS, backend=BACKEND):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.transfer.fine_tuning_process", str(run), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )


def finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path):
    expected = finish(start(tmp_path / "whole"))
    run = next((run for run in (tmp_path / f"killed-{i}" for i in range(5)) if is_killed_while_tuning(run)), None)
    assert run is not None, "it was over before the signal came, five times"
    assert finish(start(run)) == expected


def is_killed_while_tuning(run):
    """Begin a run and kill it in its second phase; False if it had come to its end."""
    process = start(run)
    while process.poll() is None and len(list(run.glob("checkpoint/lp-ft/*.safetensors"))) < 2:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return json.loads((run / "run.json").read_text())["status"] == "running"


@pytest.mark.together
def test_the_same_losses_on_every_backend(tmp_path):
    others = [name for name in ("tensorflow", "jax", "torch") if name != BACKEND and importlib.util.find_spec(name)]
    mine = finish(start(tmp_path / BACKEND))
    for backend in others:
        theirs = finish(start(tmp_path / backend, backend=backend))
        for metric in ("loss", "val_loss", "accuracy"):
            np.testing.assert_allclose(mine["history"][metric], theirs["history"][metric], atol=1e-4, err_msg=backend)


# What is refused. -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((DATA[0], np.zeros(36, int)), "There must be images of two classes or more. Received: 36 images of class 0"),
        ((DATA[0][:2], DATA[1][:2]), "an image of every class at least. Received: 2 images for 3 classes"),
        ((DATA[0], DATA[1] + 1), r"Labels of the training images must be 0 to 2.*Received: label 3"),
        ((DATA[0], DATA[1] - 1), r"Labels of the training images must be 0 or more\. Received: -1"),
        ((DATA[0], DATA[1][:-1]), r"Labels of the training images must be 36, one per image\. Received: 35"),
        ((DATA[0].astype("float32"), DATA[1]), r"must be uint8, 0 to 255.*Received: float32 of shape \(20, 24, 3\)"),
        (DATA[0], "must be an ImageFolder or a pair of images and labels. Received: ndarray"),
        ((DATA[0][:6], [0, 1, 0, 1, 0, 1]), "Every class must have an image. Received: none of class 2"),
    ],
)
def test_images_that_do_not_fit_are_refused(tune, data, message):
    with pytest.raises(ValueError, match=message):
        tune(data=data)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_few_bits_are_refused_and_mixed_precision_is_named(tune, dtype):
    model = opened_vit(ViTBackbone((16, 16, 3), 8, **SIZES, dtype=dtype), 3)
    with pytest.raises(ValueError, match=rf"must be float32 for training.*mixed_{dtype}.* weights of {dtype}$"):
        tune(model)
    mixed = opened_vit(ViTBackbone((16, 16, 3), 8, **SIZES, dtype="mixed_bfloat16"), 3)
    losses = tune(mixed, method="probe", probe_epochs=10)[1]["history"]["loss"]
    assert losses[-1] < losses[0]


def test_a_folder_of_other_classes_is_refused(tune, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (20, 20)).save(tmp_path / "photos" / name / f"{i}.png")
    folder = scan_folder(tmp_path / "photos")
    with pytest.raises(ValueError, match=r"a logit for each class.*with 3 logits, and 2 classes: cat, dog"):
        tune(data=folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 4}, "`blocks` must be None .all weights. or 0 to 3"),
        ({"class_weights": {0: 1.0}}, "`class_weights` must be 'balanced', None, or a number"),
        ({"class_weights": "even"}, "Received: class_weights='even'"),
        ({"class_weights": {0: 1.0, 1: 1.0, 2: -1.0}}, "0 or more, for each class"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tune, changes, message):
    with pytest.raises(ValueError, match=message):
        tune(**changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "head"), ("probe_epochs", 0), ("probe_epochs", 2_000_000), ("epochs", 1.5), ("warmup_epochs", 10),
        ("layer_decay", 0), ("blocks", -1), ("weight_decay", -1), ("global_clipnorm", 0), ("rank", True), ("alpha", 0),
        ("target_layer_names", ()), ("target_layer_names", ("query",)), ("target_layer_names", ("q_dense",) * 2),
        ("augmentation", "pictures"), ("label_smoothing", 1), ("batch_size", 0), ("validation_split", 1),
        ("learning_rate", 0), ("new_head", 1), ("seed", 2**31), ("probe_learning_rate", float("nan")),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must be .*Received: {field}="):
        FineTuning(**{field: value})


def test_lora_takes_no_number_of_blocks():
    with pytest.raises(ValueError, match="`blocks` does not go with LoRA"):
        FineTuning(method="lora", blocks=1)


def test_options_survive_json():
    options = FineTuning(method="lora", target_layer_names=["q_dense"], augmentation=Augmentation(mirror=0.5))
    assert FineTuning.from_json(json.loads(json.dumps(options.to_json()))) == options
    none = FineTuning(augmentation=None)
    assert FineTuning.from_json(none.to_json()) == none
    with pytest.raises(ValueError, match=r"Fine-tuning has no field 'epoch'. Did you mean epochs\?"):
        FineTuning.from_json({"epoch": 3})


OLDER = {
    "method": "lora", "epochs": 4, "warmup": 0.25, "clip_norm": 2.0, "projections": ["q_dense"],
    "validation_share": 0.3,
}  # fmt: skip


def test_options_of_an_older_version_are_understood():
    options = FineTuning.from_json(OLDER)
    assert (options.warmup_epochs, options.global_clipnorm, options.validation_split) == (1.0, 2.0, 0.3)
    assert options.target_layer_names == ("q_dense",)
    assert options.to_json().keys().isdisjoint(OLDER.keys() - {"method", "epochs"})
    assert FineTuning.from_json({"warmup": 0.1}) == FineTuning()  # the default, whatever the number of epochs
    assert FineTuning(epochs=5).tuning.warmup_epochs == 0.5
    for nonsense in ("long", [1], 2, {}):
        with pytest.raises(ValueError, match="`warmup_epochs` must be"):
            FineTuning.from_json({"warmup": nonsense})


def test_a_run_of_an_older_version_is_resumed(tune, tmp_path):
    """Its `run.json` has the names of that version."""
    few = {"method": "full", "epochs": 2, "batch_size": 12}
    with pytest.raises(KeyboardInterrupt):
        tune(run=tmp_path / "run", callbacks=[Stop(0)], **few)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    of_run = record["configuration"]["fine_tuning"]
    for new, old in (("global_clipnorm", "clip_norm"), ("validation_split", "validation_share")):
        of_run[old] = of_run.pop(new)
    of_run["projections"], of_run["warmup"] = of_run.pop("target_layer_names"), 0.1
    assert of_run.pop("warmup_epochs") is None
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert tune(run=tmp_path / "run", **few)[1]["status"] == "finished"


# TransferClassifier.fit. ----------------------------------------------------------------------------------------------


def photographs(folder, names, count=6):
    images, labels = coloured(count * len(names), len(names))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / names[label] / f"{i:02}.png")
    return folder


def test_fit_learns_under_the_classifiers_own_class_numbers_and_keeps_the_result(tmp_path):
    folder = photographs(tmp_path / "photos", ["ant", "bee", "cow"])
    mine = TransferClassifier(classifier(), PREPROCESSING, ["cow", "ant", "bee"])
    options = FineTuning(method="probe", probe_epochs=100, batch_size=6)
    quiet = {"cache": tmp_path / "features", "console": Console(quiet=True)}
    record = mine.fit(folder, options=options, run=tmp_path / "run", **quiet)
    assert mine.evaluate(folder).accuracy >= 0.8
    assert record["class_names"] == ["cow", "ant", "bee"]
    assert mine.metrics["validation"]["accuracy"] == record["validation_accuracy"]
    assert "confusion" not in mine.metrics["validation"]  # which has a number for each pair of classes
    kept = TransferClassifier.load(tmp_path / "run" / "classifier")
    assert kept.class_names == mine.class_names
    assert kept.provenance["fine_tuning"]["probe_epochs"] == 100
    np.testing.assert_allclose(kept.probabilities(folder), mine.probabilities(folder), atol=1e-6)
    with pytest.raises(RunFolderError, match="holds a finished run"):
        mine.fit(folder, run=tmp_path / "run", **quiet)


def test_skipped_files_of_a_folder_are_reported(tmp_path):
    folder = photographs(tmp_path / "photos", ["ant", "bee", "cow"])
    (folder / "bee" / "text.png").write_text("no image")
    mine = TransferClassifier(classifier(), PREPROCESSING, ["ant", "bee", "cow"])
    quiet = {"cache": tmp_path / "features", "console": Console(quiet=True)}
    with pytest.warns(UserWarning, match=r"1 files were skipped in .*photos: bee/text\.png: .*no image file"):
        record = mine.fit(folder, options=FineTuning(method="probe", probe_epochs=1), run=tmp_path / "run", **quiet)
    ((entry),) = record["skipped"]
    assert entry["file"] == "bee/text.png"
    with pytest.warns(UserWarning, match="1 files were skipped"):
        assert len(mine.evaluate(folder).labels) == 18


def test_a_classifier_that_has_learned_does_not_go_on_with_its_run(tmp_path):
    options = FineTuning(**QUICK)
    quiet = {"cache": tmp_path / "features", "console": Console(quiet=True)}
    mine = TransferClassifier(classifier(), PREPROCESSING, ["ant", "bee", "cow"])
    with pytest.raises(KeyboardInterrupt):
        mine.fit(DATA, options=options, run=tmp_path / "run", callbacks=[Stop(2)], **quiet)
    with pytest.raises(
        RunFolderError, match=r"model was .*A trained model counts as another model. To resume, build the model again"
    ):
        mine.fit(DATA, options=options, run=tmp_path / "run", **quiet)
    anew = TransferClassifier(classifier(), PREPROCESSING, ["ant", "bee", "cow"])
    assert anew.fit(DATA, options=options, run=tmp_path / "run", **quiet)["status"] == "finished"


def test_fit_refuses_at_once_a_model_that_cannot_be_saved(tmp_path):
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(images)))
    other = TransferClassifier(model, PREPROCESSING, ["a", "b"])
    with pytest.raises(ValueError, match="An artifact holds a ViTClassifier"):
        other.fit(coloured(12, 2), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_run_folder_no_lock_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    options = FineTuning(method="probe", probe_epochs=1, validation_split=0)
    ours = TransferClassifier(classifier(), PREPROCESSING, ["a", "b", "c"])
    ours.fit(DATA, options=options, cache=tmp_path / "features", console=Console(quiet=True))
    assert ours.provenance["fine_tuning"]["method"] == "probe"


def test_fit_refuses_a_folder_of_another_class(tmp_path):
    folder = photographs(tmp_path / "photos", ["ant", "bee", "cat"])
    with pytest.raises(ValueError, match=r"must have the names of classes.*'cat'"):
        TransferClassifier(classifier(), PREPROCESSING, ["ant", "bee", "cow"]).fit(folder)


def test_channels_first(tmp_path):
    first = Preprocessing(16, scale=1 / 127.5, offset=-1.0, data_format="channels_first")
    quiet = {"cache": tmp_path / "features", "console": Console(quiet=True)}
    histories = []
    for preprocessing, model in ((PREPROCESSING, classifier()), (first, channels_first_classifier())):
        record = fine_tune(model, preprocessing, DATA, options=FineTuning(**QUICK), **quiet)
        histories.append(record["history"]["loss"])
    np.testing.assert_allclose(histories[0], histories[1], atol=1e-5)


def channels_first_classifier():
    like = classifier()
    config = {**like.backbone.get_config(), "image_shape": (3, 16, 16), "data_format": "channels_first", "name": None}
    model = opened_vit(ViTBackbone(**config), 3)
    model.set_weights(like.get_weights())
    return model
