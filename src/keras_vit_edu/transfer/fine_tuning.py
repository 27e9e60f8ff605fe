"""Fine-tune a pretrained classifier on new photographs."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import keras
import numpy as np
from rich.console import Console

from keras_vit_edu import _interruption, random
from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._keras_internals import layers_within, seed_generators
from keras_vit_edu.datasets import Augmentation, ImageFolder, class_weights
from keras_vit_edu.evaluation import Evaluation, probabilities, write_evaluation
from keras_vit_edu.training.pictures import draw_curves, summary
from keras_vit_edu.training.progress import counting
from keras_vit_edu.training.run_folder import RunFolder, RunFolderError
from keras_vit_edu.training.session import Session
from keras_vit_edu.transfer.features import model_fingerprint
from keras_vit_edu.transfer.fine_tuning_options import FineTuning, present_names, shown_phase
from keras_vit_edu.transfer.freezing import (
    check_gives_logits,
    check_has_no_lora,
    check_number_of_blocks,
    head_of,
    last_step,
)
from keras_vit_edu.transfer.lora import check_takes_lora
from keras_vit_edu.transfer.model_checks import check_precision
from keras_vit_edu.transfer.phases import Phases
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.split_images import Part, split_images
from keras_vit_edu.transfer.training_images import scaled

BALANCED: Final = "balanced"


def fine_tune(
    model: keras.Model,
    preprocessing: Preprocessing,
    train: ImageFolder | tuple[Any, Any],
    validation: ImageFolder | tuple[Any, Any] | None = None,
    options: FineTuning | None = None,
    run: RunFolder | None = None,
    class_weights: Mapping[int, float] | Literal["balanced"] | None = BALANCED,
    class_names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    console: Console | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | None = None,
    afterwards: Callable[[Evaluation | None], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train a pretrained classifier on photographs, in place.

    The default is LP-FT: first a linear probe on features that are computed once, then the whole model on augmented
    images, with lower learning rates in the lower layers. See `FineTuning`.

    The same seed gives the same run on every backend, up to rounding. To resume an interrupted run, call `fine_tune`
    again with the same folder, and with a model that was built in the same way. The resumed run ends with the same
    weights, bit for bit, as an uninterrupted run. If the loss becomes NaN or infinite, the last good weights are
    restored. SIGINT (Ctrl-C) and SIGTERM end the run after the current batch; a second signal ends it at once.

    The run folder holds `run.json`, `history.csv` (the epochs of the probe, then of the tuning; `phases` in `run.json`
    has their numbers), a checkpoint after each epoch, `summary.txt`, `accuracy.png` and `loss.png`; with validation
    also `evaluate.json`, `confusion.png` and `mistakes.png`.

    Args:
        model: maps preprocessed images to logits, and ends in a Dense layer without activation. It is a
            `ViTClassifier`, or another functional or Sequential model (then `blocks` must be None or 0, and LoRA is not
            possible). Any other model, such as a subclassed one, needs `method="full"`; its head keeps its weights.
        preprocessing: maps raw images to the inputs of the model.
        train: an `ImageFolder` from `datasets.scan_folder`; or a pair of images, uint8 `(n, H, W, 3)` or a list of
            `(H, W, 3)` of any sizes, and labels, int `(n,)`. Images are kept in memory at the model's size, one byte
            per value. More than 2 GiB are kept in a temporary file.
        validation: like `train`; None for a share of every class of `train`. Exact copies of an image are not split
            between training and validation.
        options: training settings; None for the defaults.
        run: run folder, new or to resume; None for a temporary folder.
        class_weights: `"balanced"` to give each class the same total weight; a weight for each class index; or None.
        class_names: a name for each logit; None for the folder's names, or numbers.
        cache: folder of cached features; None for `default_cache()`.
        console: shows the progress; None for the standard output.
        callbacks: further Keras callbacks for both phases. They must not stop a phase early.
        jit_compile: as in `training.train`.
        afterwards: called after training with the `training.Evaluation` of the validation images (None without
            validation), before the run is marked as finished. Its result is added to `run.json`.

    Returns:
        The contents of `run.json`, with `phases`, `history` and, if there is validation, `validation_accuracy`.

    Raises:
        ValueError: if all images are of one class; if there are fewer images than classes, labels without a logit,
            options that do not fit the model, weights that are not float32, or LoRA matrices in the model; if a
            callback stops a phase early.
        RunFolderError: as `training.train`.
        TrainingFailed: if the loss is NaN or infinite; the message names the step.
        KeyboardInterrupt: after SIGINT or SIGTERM. The weights and `run.json` stay usable.

    Warns:
        UserWarning: if `validation` shares images with `train`.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> model = ViTClassifier(backbone, num_classes=2, head="token", head_units=())
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3)).astype("uint8")
        >>> images[:10] //= 2  # ten are dark
        >>> quick = FineTuning(probe_epochs=2, epochs=1, batch_size=8)
        >>> record = fine_tune(model, Preprocessing(32, scale=1 / 255), (images, np.repeat([0, 1], 10)),
        ...     options=quick, console=Console(quiet=True), cache="features")  # doctest: +SKIP
        >>> [phase["name"] for phase in record["phases"]]  # doctest: +SKIP
        ['probe', 'lp-ft']
    """
    options = options or FineTuning()
    console = console or Console(highlight=False, markup=False, soft_wrap=True)
    count = cast(int, shapes_of(model, preprocessing.output_shape).output[-1])
    head = _head_to_train(model, options, console)
    check_precision(model)
    check_has_no_lora(model)
    check_number_of_blocks("blocks", options.blocks, model)
    if options.method == "lora":
        check_takes_lora(model)
    training, held_out = split_images(train, validation, options.validation_split, options.seed, model, count, console)
    weights = _checked_weights(class_weights, training.labels, count)
    names = tuple(class_names or training.images.class_names or map(str, range(count)))
    with _interruption.held(), contextlib.ExitStack() as stack:
        is_kept = run is not None  # else nobody sees the pictures
        if run is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fine-tuning-"))
            run = stack.enter_context(RunFolder(Path(folder) / "run", lock=False))
        session = Session(run, console, callbacks, jit_compile)
        phases = Phases(
            model=model,
            head=head,
            preprocessing=preprocessing,
            options=options,
            training=training,
            validation=held_out,
            class_weights=weights,
            num_classes=count,
            session=session,
            cache=cache,
        )
        _configure(run, phases)
        with session.running(**_entries_at_start(phases, names)):
            if is_kept:
                (run / "summary.txt").write_text(summary(model), encoding="utf-8")
            phases.train()
            run.write_history(session.history.values)
            found = None if held_out is None else _evaluate(phases, held_out, names)
            more = dict(afterwards(found)) if afterwards is not None else {}
            if is_kept:  # the trained weights are saved by now
                _draw(phases, found)
        return session.finish(**_entries_at_end(phases, found), **more)


def _head_to_train(model: Any, options: FineTuning, console: Console) -> keras.layers.Dense | None:
    """The head; None if the whole model trains and its head is unknown."""
    if options.method != "full" or options.blocks is not None:
        try:
            return head_of(model)
        except ValueError as error:
            raise ValueError(f'{error} (For such a model use method="full", which trains all layers.)') from None
    check_gives_logits(model)
    last = last_step(model)
    if last is not None and isinstance(last[0], keras.layers.Dense):
        return last[0]
    if options.new_head:
        console.print(f"the head of {model.name} is unknown: all layers begin with their present weights")
    return None


def _checked_weights(weights: Any, labels: np.ndarray, count: int) -> dict[int, float] | None:
    if weights is None or weights == BALANCED:
        return class_weights(labels, count) if weights == BALANCED else None
    is_right = isinstance(weights, Mapping) and sorted(weights) == list(range(count))
    if not is_right or not all(np.isfinite(weight) and weight >= 0 for weight in weights.values()):
        raise ValueError(
            f"`class_weights` must be {BALANCED!r}, None, or a number, 0 or more, for each class, 0 to {count - 1}. "
            f"Received: class_weights={weights!r}"
        )
    return {int(label): float(weight) for label, weight in weights.items()}


def _configure(run: RunFolder, phases: Phases) -> None:
    """Prepare the model for the run, and set the configuration of the run.

    Raises:
        RunFolderError: if the folder holds another run. The head is then unchanged.
    """
    model, head, options = phases.model, phases.head, phases.options
    own_head = [] if head is None else head.get_weights()
    if head is not None and options.new_head:
        head.set_weights([np.zeros_like(weight) for weight in own_head])
    has_fields = isinstance(options.augmentation, Augmentation)
    defaults = FineTuning(augmentation=Augmentation() if has_fields else options.augmentation)
    parts = {"train": phases.training, "validation": phases.validation}
    configuration = {
        "fine_tuning": options.to_json(),
        "model": model_fingerprint(model),
        "preprocessing": phases.preprocessing.to_json(),
        "images": {name: part and part.fingerprint for name, part in parts.items()},
        "class_weights": {str(label): weight for label, weight in (phases.class_weights or {}).items()},
    }
    try:
        run.configure(configuration, {"fine_tuning": defaults.to_json()}, _present)
    except BaseException as error:
        if head is not None:
            head.set_weights(own_head)
        if not isinstance(error, RunFolderError):
            raise
        if run.record.get("configuration", {}).get("model") == configuration["model"]:
            raise
        raise RunFolderError(
            f"{error} (A trained model counts as another model. To resume, build the model again as at the beginning.)"
        ) from None
    _seed_dropout(model, options.seed)


def _present(configuration: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that an older version began, as this version has it."""
    return {**configuration, "fine_tuning": present_names(configuration.get("fine_tuning"))}


def _seed_dropout(model: keras.Model, seed: int) -> None:
    """Reset every dropout and stochastic depth, with seeds that depend only on the position of the layer and `seed`."""
    generators = [generator for layer in layers_within(model) for generator in seed_generators(layer)]
    for number, generator in enumerate(generators):
        generator.state.assign(np.array([random.derive_seed(seed, f"dropout_{number}"), 0]))


def _entries_at_start(phases: Phases, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The entries of `run.json` at the beginning."""
    training, validation = phases.training, phases.validation
    several = dict.fromkeys(part.images for part in (training, validation) if part is not None)  # often the same object
    return {
        "seed": phases.options.seed,
        "fine_tuning": phases.options.to_json(),
        "parameters": phases.model.count_params(),
        "images": {"train": len(training.indices), "validation": len(validation.indices) if validation else 0},
        "skipped": [entry for images in several for entry in images.skipped],
        "class_names": list(class_names),
    }


def _entries_at_end(phases: Phases, found: Evaluation | None) -> dict[str, Any]:
    """The entries of `run.json` after training."""
    history = phases.session.history.values
    return {
        "phases": phases.done,
        "train_accuracy": history["accuracy"][-1],
        "validation_accuracy": None if found is None else found.accuracy,
        "validation_loss": None if found is None else found.loss,
        "history": history,
        "timings": {"training_seconds": round(sum(history["seconds"]), 2)},
    }


def _evaluate(phases: Phases, part: Part, class_names: tuple[str, ...]) -> Evaluation:
    """Evaluate the model on the validation images."""
    size = min(phases.options.batch_size, len(part.indices))
    rows = []
    with counting(phases.session.console, "evaluating", len(part.indices)) as advance:
        for start in range(0, len(part.indices), size):
            chosen = part.indices[start : start + size]
            batch = part.images.batch(phases.preprocessing, np.resize(chosen, size))  # one constant size
            rows.append(probabilities(phases.model, scaled(batch, phases.preprocessing))[: len(chosen)])
            advance(len(chosen))
    return Evaluation(part.labels.astype("int64"), np.concatenate(rows), class_names)


def _draw(phases: Phases, found: Evaluation | None) -> None:
    """Draw the learning curves, and write and draw the evaluation."""
    session, part = phases.session, phases.validation
    shown = [(shown_phase(phase["name"]), phase["epochs"]) for phase in phases.done]
    draw_curves(session.history.values, session.run, session.console, phases=shown)
    if found is None or part is None:
        return
    try:
        write_evaluation(
            found,
            session.run.path,
            {"dataset": "validation", **found.to_json()},
            lambda some: part.images.thumbnails(part.indices[some]),
            lambda i: part.images.name_of(int(part.indices[i])),
        )
    except ImportError as error:
        session.console.print(f"{error} (no evaluate.json, confusion.png and mistakes.png)")
