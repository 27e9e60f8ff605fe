"""The two phases of fine-tuning: the probe trains a head on features, then the tuning trains on pixels."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_vit_edu._weights import copy_variables
from keras_vit_edu.datasets import Batches
from keras_vit_edu.training.checkpoint import load_newest, save_checkpoint
from keras_vit_edu.training.recipe import Recipe
from keras_vit_edu.training.run_folder import RunFolderError
from keras_vit_edu.training.schedules import cosine_with_warmup
from keras_vit_edu.training.session import Session
from keras_vit_edu.transfer.features import compute_features, feature_model
from keras_vit_edu.transfer.fine_tuning_options import FineTuning, shown_phase, what_trains
from keras_vit_edu.transfer.freezing import TrainableCount, count_trainable, unfreeze_last
from keras_vit_edu.transfer.layer_decay import layer_wise
from keras_vit_edu.transfer.lora import add_lora, merge_lora
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.split_images import Part
from keras_vit_edu.transfer.training_images import TrainingImages, scaled

# Exempt from weight decay, in addition to all vectors (biases, normalizations).
NO_WEIGHT_DECAY = ("position_embedding", "position_bias", "prefix_tokens")


@dataclass
class Phases:
    """The phases of one fine-tuning, and their common data.

    Attributes:
        model: maps preprocessed images to logits. It is trained in place.
        head: last layer of the model; None if it is unknown and there is no probe.
        preprocessing: maps raw images to the inputs of the model.
        options: training settings.
        training, validation: the images; `validation` may be None.
        class_weights: weight of each class in the loss; None for equal weights.
        num_classes: number of logits.
        session: the current run.
        cache: folder of cached features; None for `default_cache()`.
        done: the finished phases, as in `run.json`.
    """

    model: Any
    head: keras.layers.Dense | None
    preprocessing: Preprocessing
    options: FineTuning
    training: Part
    validation: Part | None
    class_weights: Mapping[int, float] | None
    num_classes: int
    session: Session
    cache: str | Path | None
    done: list[dict[str, Any]] = field(default_factory=list)

    def train(self) -> None:
        """Run all phases of the method, or the remaining part of a resumed run."""
        if self.options.probe is not None:
            self._probe(self.options.probe)
        if self.options.tuning is not None:
            self._tune(self.options.tuning)

    # The probe. -------------------------------------------------------------------------------------------------------

    def _probe(self, recipe: Recipe) -> None:
        """Train a Dense layer on features, and copy its weights into the head."""
        assert self.head is not None
        features = functools.cache(self._features)  # never called if the probe is already finished
        width = self.head.kernel.shape[0]
        layer = keras.layers.Dense(self.head.units, use_bias=self.head.use_bias, name="logits", dtype=self.head.dtype)
        probe = keras.Sequential([keras.Input((width,)), layer], name="probe")
        copy_variables(self.head.weights, layer.weights)
        rows = bool(recipe.label_smoothing)

        def batches(part: Part, is_training: bool) -> Batches:
            return self._batches(features(part.images)[part.indices], part, recipe, is_training, rows)

        optimizer = keras.optimizers.AdamW(
            recipe.learning_rate_schedule(self._steps(recipe)), weight_decay=recipe.weight_decay, name="adamw"
        )
        try:
            self._fit(probe, recipe, optimizer, batches, rows, count_trainable(probe))
        finally:
            copy_variables(layer.weights, self.head.weights)

    def _features(self, images: TrainingImages) -> np.ndarray:
        return compute_features(
            feature_model(self.model),
            self.preprocessing,
            images,
            self.cache,
            self.options.batch_size,
            self.session.console,
            keep_pixels=self.options.tuning is not None,
        )

    # The tuning. ------------------------------------------------------------------------------------------------------

    def _tune(self, recipe: Recipe) -> None:
        """Train the blocks, or LoRA's updates, with the head from the probe."""
        tuned, optimizer, count = self._what_is_tuned(recipe)
        console = self.session.console
        sample = self.training.images.pixels(self.preprocessing, console)
        augmentation = self.options.augmentation_at(*sample.shape[1:3])
        rows = bool(recipe.label_smoothing) or (augmentation is not None and augmentation.mixes)

        def batches(part: Part, is_training: bool) -> Batches:
            def prepare(images: np.ndarray, labels: np.ndarray, epoch: int, index: int) -> tuple[Any, Any]:
                if is_training and augmentation is not None:
                    varied, labels = augmentation(images, labels, recipe.seed, epoch, index)
                    images = varied * np.float32(255)
                return scaled(images, self.preprocessing), labels

            chosen = _Chosen(part.images.pixels(self.preprocessing, console), part.indices)
            return self._batches(chosen, part, recipe, is_training, rows, prepare)

        try:
            self._fit(tuned, recipe, optimizer, batches, rows, count)
        finally:
            if tuned is not self.model:
                merge_lora(tuned, into=self.model)

    def _what_is_tuned(self, recipe: Recipe) -> tuple[Any, keras.optimizers.Optimizer, TrainableCount]:
        """The model with its trainable layers unfrozen, or a copy with LoRA; its optimizer; the count of weights."""
        options, steps = self.options, self._steps(recipe)
        if options.method == "lora":
            tuned = add_lora(self.model, options.rank, options.alpha, options.target_layer_names, options.seed)
            optimizer = _adamw(tuned, recipe, steps, global_clipnorm=recipe.global_clipnorm)
            optimizer.build(tuned.trainable_variables)
            return tuned, optimizer, count_trainable(tuned)
        count = unfreeze_last(self.model, options.blocks, Console(quiet=True))
        optimizer = layer_wise(
            self.model,
            lambda factor: _adamw(self.model, recipe, steps, factor),
            options.layer_decay,
            recipe.global_clipnorm,
        )
        return self.model, optimizer, count

    # Both. ------------------------------------------------------------------------------------------------------------

    def _fit(
        self,
        model: keras.Model,
        recipe: Recipe,
        optimizer: keras.optimizers.Optimizer,
        batches: Callable[[Part, bool], Batches],
        rows: bool,
        count: TrainableCount,
    ) -> None:
        """Train for the remaining epochs of a phase."""
        if type(model).fit is not keras.Model.fit:  # keras_hub's `fit` would preprocess a second time
            policy, model = model.dtype_policy, keras.Model(model.input, model.output, name=model.name)
            model.dtype_policy = policy  # Keras scales the loss of a model under mixed_float16
        session, shown = self.session, shown_phase(recipe.name)
        first = sum(phase["epochs"] for phase in self.done)
        last = first + recipe.epochs
        self.done.append({"name": recipe.name, "epochs": recipe.epochs, **count._asdict()})
        session.compile(model, optimizer, rows, recipe.label_smoothing)
        found = session.resume(model, recipe.name)
        checkpoints = session.run.checkpoints(recipe.name)
        if found is None:  # weights to restore after a failure
            save_checkpoint(checkpoints, model, first, session.history.values)
        elif found.epochs_done > first:
            done = found.epochs_done - first
            session.console.print(f"resuming after {shown} {done}/{recipe.epochs} ({found.file})")
        if session.epochs_done == last:
            return
        training = batches(self.training, True)
        session.console.print(f"{shown}: {what_trains(recipe.name, count)}")
        validation = None if self.validation is None else batches(self.validation, False)
        try:
            session.fit(model, recipe, training, validation, shown, first, self.class_weights)
        except BaseException as error:  # on JAX an interrupted model may have lost its weights
            try:
                load_newest(checkpoints, model, session.console.print)
            except RunFolderError as second:
                error.add_note(f"The weights could not be restored: {second}")
            raise
        if session.history.epochs_done < last:
            raise ValueError(
                "A callback must not stop a phase early, because its learning-rate schedule covers all epochs. Set "
                f"fewer epochs instead. Received: {shown} stopped after {session.history.epochs_done - first} of "
                f"{recipe.epochs} epochs"
            )

    def _steps(self, recipe: Recipe) -> int:
        return -(-len(self.training.indices) // recipe.batch_size)

    def _batches(
        self, images: Any, part: Part, recipe: Recipe, is_training: bool, rows: bool, prepare: Any = None
    ) -> Batches:
        return Batches(
            images,
            part.labels,
            recipe.batch_size,
            shuffle=is_training,
            seed=recipe.seed,
            one_hot=self.num_classes if rows else None,
            augment=prepare or (lambda images, labels, epoch, index: (images, labels)),
        )


class _Chosen:
    """A view of some images of an array, without a copy. It has the methods that `Batches` needs."""

    def __init__(self, pixels: np.ndarray, indices: np.ndarray) -> None:
        self.pixels, self.indices = pixels, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        return self.pixels[self.indices[chosen]]


def _adamw(
    model: Any, recipe: Recipe, steps_per_epoch: int, factor: float = 1.0, global_clipnorm: float | None = None
) -> keras.optimizers.Optimizer:
    """AdamW with the recipe's learning rate times `factor`."""
    warmup_steps = round(recipe.warmup_epochs * steps_per_epoch)
    decay_steps = max(recipe.epochs * steps_per_epoch - warmup_steps, 1)
    rate = cosine_with_warmup(recipe.learning_rate * factor, warmup_steps, decay_steps)
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=recipe.weight_decay, global_clipnorm=global_clipnorm, name="adamw"
    )
    exempt = [
        weight for weight in model.weights if len(weight.shape) < 2 or any(n in weight.path for n in NO_WEIGHT_DECAY)
    ]
    optimizer.exclude_from_weight_decay(var_list=exempt)
    return optimizer
