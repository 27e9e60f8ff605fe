"""Fine-tuning: a pretrained classifier learns the classes of someone's photographs."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
from rich.console import Console

from keras_vit_edu import _interruption, random
from keras_vit_edu._image_model import shapes_of
from keras_vit_edu._keras_internals import layers_within, seed_generators
from keras_vit_edu._machine import environment
from keras_vit_edu._weights import copy_variables
from keras_vit_edu.datasets import Augmentation, Batches, class_weights
from keras_vit_edu.evaluation import Evaluation, probabilities, write_evaluation
from keras_vit_edu.training.checkpoint import load_newest, save_checkpoint
from keras_vit_edu.training.progress import ProgressDisplay, counting
from keras_vit_edu.training.recipe import Recipe
from keras_vit_edu.training.run_folder import CHECKPOINTS, RunFolder, RunFolderError, now
from keras_vit_edu.training.stop_when_asked import StopWhenAsked
from keras_vit_edu.training.train import (
    History,
    KeepCheckpoints,
    StopIfNotFinite,
    compile_classifier,
    draw_curves,
    summary,
)
from keras_vit_edu.transfer.features import compute_features, feature_model, model_fingerprint
from keras_vit_edu.transfer.fine_tuning_options import FineTuning, shown_phase, what_trains
from keras_vit_edu.transfer.freezing import (
    TrainableCount,
    check_gives_logits,
    check_has_no_lora,
    check_number_of_blocks,
    count_trainable,
    head_of,
    last_step,
    unfreeze_last,
)
from keras_vit_edu.transfer.layer_decay import layer_wise
from keras_vit_edu.transfer.lora import add_lora, check_takes_lora, merge_lora
from keras_vit_edu.transfer.model_checks import check_precision
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.split_images import Part, split_images
from keras_vit_edu.transfer.training_images import TrainingImages, scaled

BALANCED = "balanced"
# Besides all that is no matrix: biases, normalisations.
NO_WEIGHT_DECAY = ("position_embedding", "position_bias", "prefix_tokens")


def fine_tune(
    model: Any,
    preprocessing: Preprocessing,
    train: Any,
    validation: Any = None,
    options: FineTuning | None = None,
    run: RunFolder | None = None,
    class_weights: Mapping[int, float] | str | None = BALANCED,
    class_names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    console: Console | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool | None = None,
    afterwards: Callable[[Evaluation | None], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train a pretrained classifier on photographs, in place.

    By default as LP-FT: a linear probe on features that are computed once, then all of the model from there, slower in
    the lower layers, on varied images. See `FineTuning`.

    The same seed gives the same run on every backend, as far as rounding allows. Call it again with the same folder,
    and a model made in the same way, to resume an interrupted run. Whenever it was interrupted, it ends with the same
    weights, bit for bit, as an uninterrupted one. If the loss is no longer a number, the model gets the last good
    weights back. SIGINT (Ctrl-C) and SIGTERM end the run after the batch that is being computed; a second signal ends
    it at once.

    Written into the run folder: `run.json`, `history.csv` (first the probe's epochs, then the tuning's; `phases` in
    `run.json` says how many), a checkpoint after each epoch, `summary.txt`, `accuracy.png`, `loss.png`; with validation
    `evaluate.json`, `confusion.png` and `mistakes.png`.

    Args:
        model: preprocessed images to logits, ending in a Dense layer without activation: an `OpenedViTClassifier`, or
            another model, functional or Sequential (for which `blocks` must be None or 0, and LoRA is not to be had).
            A subclassed model, or one that ends otherwise, needs `method="full"`; its head keeps its weights.
        preprocessing: from raw images to what the model takes.
        train: an `ImageFolder` of `datasets.scan_folder`; or a pair of images, uint8 `(n, H, W, 3)` or a list of
            `(H, W, 3)` of any sizes, and labels, int `(n,)`. Images are held in memory at the model's size, a byte per
            value, or beyond 2 GiB in a temporary file.
        validation: likewise; None for a share of every class of `train`, of which copies of an image, to the bit, stay
            on the same side.
        options: how to train; None for the defaults.
        run: where to write and to go on from; None for a temporary folder.
        class_weights: `"balanced"` for the same weight for each class, however many images it has; a weight for each
            class number; or None.
        class_names: what the logits stand for; None for the folder's names, or numbers.
        cache: folder to keep features in; None for `default_cache()`.
        console: where progress is shown; None for the standard output.
        callbacks: further Keras callbacks, of both phases; none may stop one early.
        jit_compile: as in `training.train`.
        afterwards: called with the `training.Evaluation` of the validation (None without) when all is trained, before
            the run counts as finished; what it returns goes into `run.json`.

    Returns:
        What `run.json` says: among the rest `phases`, `history` and, with validation, `validation_accuracy`.

    Raises:
        ValueError: if there are images of one class only, fewer images than classes, labels that the model has no logit
            for, options that do not fit the model, weights that are not float32, LoRA in the model already, or a
            callback that stops a phase early.
        RunFolderError: as `training.train`.
        TrainingFailed: if the loss is no longer a finite number; says where.
        KeyboardInterrupt: after SIGINT or SIGTERM. The weights, and `run.json`, are sound then.

    Warns:
        UserWarning: if images of the validation that was given are in training too.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone
        >>> from keras_vit_edu.transfer import OpenedViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> model = OpenedViTClassifier(backbone, num_classes=2)
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
    parts = split_images(train, validation, options.validation_share, options.seed, model, count, console)
    weights = _checked_weights(class_weights, parts[0].labels, count)
    with _interruption.held(), contextlib.ExitStack() as stack:
        is_kept = run is not None
        if run is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fine-tuning-"))
            run = stack.enter_context(RunFolder(Path(folder) / "run", lock=False))
        names = tuple(class_names or parts[0].images.class_names or map(str, range(count)))
        job = _Job(
            model, head, preprocessing, options, parts, weights, run, is_kept, names, cache, console, callbacks,
            jit_compile,
        )  # fmt: skip
        return job.do(afterwards)


def _head_to_train(model: Any, options: FineTuning, console: Console) -> keras.layers.Dense | None:
    """The head; None if all of a model trains that does not say where its head is."""
    if options.method != "full" or options.blocks is not None:
        try:
            return head_of(model)
        except ValueError as error:
            raise ValueError(f'{error} (Of such a model, method="full" trains all that gives logits.)') from None
    check_gives_logits(model)
    last = last_step(model)
    if last is not None and isinstance(last[0], keras.layers.Dense):
        return last[0]
    if options.new_head:
        console.print(f"{model.name} does not say which layer is its head: all layers begin with the weights they have")
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


class _Job:
    """One call of `fine_tune`, its arguments checked."""

    def __init__(
        self,
        model: Any,
        head: keras.layers.Dense | None,
        preprocessing: Preprocessing,
        options: FineTuning,
        parts: tuple[Part, Part | None],
        weights: dict[int, float] | None,
        run: RunFolder,
        is_kept: bool,
        class_names: tuple[str, ...],
        cache: str | Path | None,
        console: Console,
        callbacks: Sequence[keras.callbacks.Callback],
        jit_compile: bool | None,
    ) -> None:
        self.model, self.preprocessing, self.options = model, preprocessing, options
        self.training, self.validation = parts
        self.is_kept = is_kept  # else nobody looks at pictures
        self.weights, self.run, self.cache, self.console = weights, run, cache, console
        self.callbacks, self.jit_compile = callbacks, jit_compile
        self.head = head
        self.class_names = class_names
        self.history = History(run, {})
        self.phases: list[dict[str, Any]] = []

    def do(self, afterwards: Callable[[Evaluation | None], Mapping[str, Any]] | None) -> dict[str, Any]:
        """Go through the phases; what `run.json` says."""
        self._begin()
        try:
            for recipe, phase in ((self.options.probe, self._probe), (self.options.tuning, self._tune)):
                if recipe is not None:
                    phase(recipe)
            self.run.write_history(self.history.values)
            evaluation = None if self.validation is None else self._evaluate(self.validation)
            more = dict(afterwards(evaluation)) if afterwards is not None else {}
            if self.is_kept:  # what was learned is safe by now
                self._draw(evaluation, self.validation)
            _interruption.check()
        except BaseException as error:
            status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            with contextlib.suppress(OSError):  # a full disk must not hide what filled it
                self.run.update(status=status, stopped=now(), reason=str(error), epochs_done=self.history.epochs_done)
            raise
        last = {name: values[-1] for name, values in self.history.values.items()}
        self.run.update(
            status="finished",
            finished=now(),
            epochs_done=self.history.epochs_done,
            phases=self.phases,
            train_accuracy=last["accuracy"],
            validation_accuracy=None if evaluation is None else evaluation.accuracy,
            validation_loss=None if evaluation is None else evaluation.loss,
            history=self.history.values,
            timings={"training_seconds": round(sum(self.history.values["seconds"]), 2)},
            **more,
        )
        return self.run.record

    def _default_options(self) -> dict[str, Any]:
        """The options' defaults, and the augmentation's if it has fields."""
        has_fields = isinstance(self.options.augmentation, Augmentation)
        return FineTuning(augmentation=Augmentation() if has_fields else self.options.augmentation).to_json()

    def _begin(self) -> None:
        own_head = [] if self.head is None else self.head.get_weights()
        if self.head is not None and self.options.new_head:
            self.head.set_weights([np.zeros_like(weight) for weight in own_head])
        _seed_dropout(self.model, self.options.seed)
        parts = {"train": self.training, "validation": self.validation}
        configuration = {
            "fine_tuning": self.options.to_json(),
            "model": model_fingerprint(self.model),
            "preprocessing": self.preprocessing.to_json(),
            "images": {name: part and part.fingerprint for name, part in parts.items()},
            "class_weights": {str(label): weight for label, weight in (self.weights or {}).items()},
        }
        try:
            self.run.configure(configuration, defaults={"fine_tuning": self._default_options()})
        except RunFolderError as error:
            if self.head is not None:
                self.head.set_weights(own_head)
            if self.run.record.get("configuration", {}).get("model") == configuration["model"]:
                raise
            raise RunFolderError(
                f"{error} (A model that has learned is another one: to go on, make it anew as at the beginning.)"
            ) from None
        several = dict.fromkeys(part.images for part in parts.values() if part is not None)  # often the same
        session = {"started": now(), **environment(), "jit_compile": self.jit_compile}
        self.run.update(
            status="running",
            **environment(),
            seed=self.options.seed,
            fine_tuning=self.options.to_json(),
            parameters=self.model.count_params(),
            images={name: len(part.indices) if part else 0 for name, part in parts.items()},
            skipped=[entry for images in several for entry in images.skipped],
            class_names=list(self.class_names),
            sessions=[*self.run.record.get("sessions", []), session],
        )
        if self.is_kept:
            (self.run / "summary.txt").write_text(summary(self.model), encoding="utf-8")

    # The two phases. --------------------------------------------------------------------------------------------------

    def _probe(self, recipe: Recipe) -> None:
        """Train a Dense layer on features, and give its weights to the head."""
        assert self.head is not None
        features = functools.cache(self._features)  # not at all if the probe is done already
        width = self.head.kernel.shape[0]
        layer = keras.layers.Dense(self.head.units, use_bias=self.head.use_bias, name="logits", dtype=self.head.dtype)
        probe = keras.Sequential([keras.Input((width,)), layer], name="probe")
        copy_variables(self.head.weights, layer.weights)

        def batches(part: Part, is_training: bool) -> Batches:
            return self._batches(features(part.images)[part.indices], part, recipe, is_training, None)

        optimizer = keras.optimizers.AdamW(
            recipe.learning_rate_schedule(self._steps(recipe)), weight_decay=recipe.weight_decay, name="adamw"
        )
        try:
            self._fit(probe, recipe, optimizer, batches, rows=bool(recipe.label_smoothing))
        finally:
            copy_variables(layer.weights, self.head.weights)

    def _tune(self, recipe: Recipe) -> None:
        """Train the blocks, or LoRA's additions, from the head that is there."""
        options = self.options
        if options.method == "lora":
            tuned = add_lora(self.model, options.rank, options.alpha, options.projections, options.seed)
            optimizer = _adamw(tuned, recipe, self._steps(recipe), 1.0, recipe.clip_norm)
            optimizer.build(tuned.trainable_variables)
            count = count_trainable(tuned)
        else:
            tuned = self.model
            count = unfreeze_last(tuned, options.blocks, Console(quiet=True))
            optimizer = layer_wise(
                tuned,
                lambda factor: _adamw(tuned, recipe, self._steps(recipe), factor),
                options.layer_decay,
                recipe.clip_norm,
            )
        sample = self.training.images.pixels(self.preprocessing, self.console)
        augmentation = options.augmentation_at(*sample.shape[1:3])
        rows = bool(recipe.label_smoothing) or (augmentation is not None and augmentation.mixes)

        def batches(part: Part, is_training: bool) -> Batches:
            pixels = part.images.pixels(self.preprocessing, self.console)
            chosen = _Chosen(pixels, part.indices)

            def prepare(images: np.ndarray, labels: np.ndarray, epoch: int, index: int) -> tuple[Any, Any]:
                if is_training and augmentation is not None:
                    varied, labels = augmentation(images, labels, options.seed, epoch, index)
                    images = varied * np.float32(255)
                return scaled(images, self.preprocessing), labels

            return self._batches(chosen, part, recipe, is_training, prepare, rows)

        try:
            self._fit(tuned, recipe, optimizer, batches, rows, count)
        finally:
            if tuned is not self.model:
                merge_lora(tuned, into=self.model)

    def _fit(
        self,
        model: keras.Model,
        recipe: Recipe,
        optimizer: keras.optimizers.Optimizer,
        batches: Callable[[Part, bool], Batches],
        rows: bool = False,
        count: TrainableCount | None = None,
    ) -> None:
        """The epochs of a phase that are left."""
        if type(model).fit is not keras.Model.fit:  # keras_hub's would preprocess once more
            policy, model = model.dtype_policy, keras.Model(model.input, model.output, name=model.name)
            model.dtype_policy = policy  # Keras scales the loss of a model under mixed_float16
        first = sum(phase["epochs"] for phase in self.phases)
        last = first + recipe.epochs
        count = count or count_trainable(model)
        shown = shown_phase(recipe.name)
        self.phases.append({"name": recipe.name, "epochs": recipe.epochs, **count._asdict()})
        compile_classifier(model, optimizer, rows, recipe.label_smoothing, self.jit_compile)
        folder = self.run / CHECKPOINTS / recipe.name
        found = self.run.load_newest(model, self.console.print, recipe.name)
        if found is None:  # what to fall back on
            save_checkpoint(folder, model, first, self.history.values)
        else:
            self.history.values = found.history
            if found.epochs_done > first:
                done = found.epochs_done - first
                self.console.print(f"resuming after {shown} {done}/{recipe.epochs} ({found.file})")
            if found.epochs_done == last:
                return
        training = batches(self.training, True)
        self.console.print(f"{shown}: {what_trains(recipe.name, count)}")
        display = ProgressDisplay(recipe.epochs, len(training), recipe.batch_size, self.console, shown, first)
        try:
            model.fit(
                training,
                validation_data=None if self.validation is None else batches(self.validation, False),
                epochs=last,
                initial_epoch=self.history.epochs_done,
                shuffle=False,  # `Batches` has its own order
                verbose=0,
                class_weight=self.weights,
                callbacks=[
                    training.follow_epochs(),
                    StopIfNotFinite(shown, first),
                    self.history,
                    KeepCheckpoints(folder, self.history),
                    display,
                    *self.callbacks,
                    StopWhenAsked(),
                ],
            )
        except BaseException:  # on JAX a model whose training was interrupted may be left without any weights
            load_newest(folder, model, self.console.print)
            raise
        finally:
            display.close()
        if self.history.epochs_done < last:
            raise ValueError(
                f"A callback must not stop a phase early, as its rates are planned to its end. Received: {shown} "
                f"stopped after {self.history.epochs_done - first} of {recipe.epochs} epochs; ask for fewer"
            )

    def _evaluate(self, part: Part) -> Evaluation:
        """Classify the validation's images."""
        size = min(self.options.batch_size, len(part.indices))
        rows = []
        with counting(self.console, "evaluating", len(part.indices)) as advance:
            for start in range(0, len(part.indices), size):
                chosen = part.indices[start : start + size]
                batch = part.images.batch(self.preprocessing, np.resize(chosen, size))  # always of that size
                rows.append(probabilities(self.model, scaled(batch, self.preprocessing))[: len(chosen)])
                advance(len(chosen))
        return Evaluation(part.labels.astype("int64"), np.concatenate(rows), self.class_names)

    def _draw(self, found: Evaluation | None, part: Part | None) -> None:
        """Draw how the training went, and write down and draw how the validation did."""
        phases = [(shown_phase(phase["name"]), phase["epochs"]) for phase in self.phases]
        draw_curves(self.history.values, self.run, self.console, phases=phases)
        if found is None or part is None:
            return
        try:
            write_evaluation(
                found,
                self.run.path,
                {"dataset": "validation", **found.to_json()},
                lambda some: part.images.thumbnails(part.indices[some]),
                lambda i: part.images.name_of(int(part.indices[i])),
            )
        except ImportError as error:
            self.console.print(f"{error} (no evaluate.json, confusion.png and mistakes.png)")

    # What they take. --------------------------------------------------------------------------------------------------

    def _features(self, images: TrainingImages) -> np.ndarray:
        return compute_features(
            feature_model(self.model),
            self.preprocessing,
            images,
            self.cache,
            self.options.batch_size,
            self.console,
            keep_pixels=self.options.tuning is not None,
        )

    def _steps(self, recipe: Recipe) -> int:
        return -(-len(self.training.indices) // recipe.batch_size)

    def _batches(
        self, images: Any, part: Part, recipe: Recipe, shuffle: bool, prepare: Any, rows: bool | None = None
    ) -> Batches:
        rows = bool(recipe.label_smoothing) if rows is None else rows
        return Batches(
            images,
            part.labels,
            recipe.batch_size,
            shuffle=shuffle,
            seed=recipe.seed,
            one_hot=len(self.class_names) if rows else None,
            augment=prepare or (lambda images, labels, epoch, index: (images, labels)),
        )


class _Chosen:
    """Some of the images of an array, without a copy of them: an array as far as `Batches` looks."""

    def __init__(self, pixels: np.ndarray, indices: np.ndarray) -> None:
        self.pixels, self.indices = pixels, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        return self.pixels[self.indices[chosen]]


def _adamw(
    model: Any, recipe: Recipe, steps: int, factor: float, clip_norm: float | None = None
) -> keras.optimizers.Optimizer:
    """AdamW with the recipe's schedule, its rate times `factor`."""
    rate = _schedule(recipe.replace(learning_rate=recipe.learning_rate * factor), steps)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, global_clipnorm=clip_norm, name="adamw")
    exempt = [
        weight for weight in model.weights if len(weight.shape) < 2 or any(n in weight.path for n in NO_WEIGHT_DECAY)
    ]
    optimizer.exclude_from_weight_decay(var_list=exempt)
    return optimizer


def _schedule(recipe: Recipe, steps: int) -> Any:
    """The recipe's rate by step; the warm-up begins with its first share, not with a step of rate 0."""
    schedule = recipe.learning_rate_schedule(steps)
    warmup_steps = round(recipe.warmup_epochs * steps)
    if not warmup_steps:
        return schedule
    begun = {"initial_learning_rate": recipe.learning_rate / warmup_steps}
    return keras.optimizers.schedules.CosineDecay.from_config({**schedule.get_config(), **begun})


def _seed_dropout(model: keras.Model, seed: int) -> None:
    """Let every dropout, of paths too, begin anew, with a seed that depends on its place and on `seed` alone."""
    generators = [generator for layer in layers_within(model) for generator in seed_generators(layer)]
    for number, generator in enumerate(generators):
        generator.state.assign(np.array([random.derive_seed(seed, f"dropout_{number}"), 0]))
