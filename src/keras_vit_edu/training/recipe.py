"""A recipe: everything about a training run but the model and the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_vit_edu import _backend
from keras_vit_edu._settings import (
    BETWEEN_0_AND_1,
    COUNT,
    FROM_0_BELOW_1,
    FROM_0_TO_1,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Rule,
    check,
    one_of_rule,
    or_none_rule,
    setting,
)

if not _backend.ONLY_HELP:
    import keras
    import numpy as np

    from keras_vit_edu import _checks
    from keras_vit_edu.datasets import Augmentation, load_augmentation
    from keras_vit_edu.training.schedules import LinearWithWarmup

OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "lion": "Lion"}  # the names of Keras's classes
RENAMED = {"clip_norm": "global_clipnorm"}  # older names of fields
SCHEDULES = ("constant", "cosine", "linear")
TEXT = Rule(lambda value: isinstance(value, str) and value != "", "a text")
TEXTS = Rule(
    lambda value: isinstance(value, tuple) and all(isinstance(part, str) and part for part in value), "a list of texts"
)


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the course's Program P.

    Attributes:
        name: what to call it.
        optimizer: `"adamw"`, `"adam"`, `"sgd"` (with Nesterov momentum 0.9) or `"lion"`.
        learning_rate: the highest rate of the schedule, above 0.
        schedule: `"constant"`, `"cosine"` (Loshchilov and Hutter 2017) or `"linear"`, from the highest rate down to
            `final_learning_rate` at the end of the last epoch.
        warmup_epochs: how long the rate climbs from 0 first, evenly; 0 or more, less than `epochs`.
        final_learning_rate: where the schedule ends, 0 to `learning_rate`; 0 with `"constant"`, which has no end.
        weight_decay: decoupled (Loshchilov and Hutter 2019), 0 or more.
        no_weight_decay: variables whose path inside the model contains one of these are exempt from weight decay, such
            as `("bias", "norm", "position_embedding")`. A part that matches no variable is an error.
        label_smoothing: share of the target spread over all classes, in [0, 1) (Szegedy et al. 2016).
        global_clipnorm: longest gradient, all weights taken together; None for no clipping.
        ema: momentum of an exponential moving average of the weights, in (0, 1): the average is what is validated,
            tested and kept. None for none.
        epochs: how often to go through the training images.
        batch_size: images per step.
        validation_split: the share of the training images, their last part, kept for validation, in (0, 1).
        augmentation: how to vary the training images; None for not at all. May be given by a name of those in
            `datasets.AUGMENTATIONS`, as a JSON object, or as `"none"`, which is also what JSON has for None.
        augmentation_final_epochs: over how many epochs at the end the augmentation weakens, evenly; 0 to `epochs`.
        augmentation_final_strength: its strength in the last epoch then, 0 (no augmentation) to 1.
        seed: int in [0, 2**31): of the weights, the dropout masks and the order of the batches.

    Raises:
        ValueError: for a value out of range; the field is named.

    Examples:
        >>> Recipe(epochs=3).learning_rate
        0.001
        >>> Recipe.from_json(Recipe(ema=0.999).to_json()).ema
        0.999
    """

    name: str = setting("program-p", TEXT)
    optimizer: str = setting("adamw", one_of_rule(OPTIMIZERS), "Optimizer.", "Optimizer")
    learning_rate: float = setting(1e-3, POSITIVE, "Highest learning rate of the schedule.", "Learning rate")
    schedule: str = setting("constant", one_of_rule(SCHEDULES), "Schedule of the learning rate.", "Learning rate")
    warmup_epochs: float = setting(0.0, NOT_NEGATIVE, "Learning-rate warm-up, in epochs.", "Learning rate")
    final_learning_rate: float = setting(
        0.0, NOT_NEGATIVE, "Learning rate at the end of the schedule.", "Learning rate"
    )
    weight_decay: float = setting(1e-4, NOT_NEGATIVE, "Decoupled weight decay.", "Optimizer")
    no_weight_decay: tuple[str, ...] = setting(
        (), TEXTS, "Exempt variables with this in their path from weight decay; may be repeated.", "Optimizer"
    )
    label_smoothing: float = setting(0.0, FROM_0_BELOW_1, "Label smoothing.", "Optimizer")
    global_clipnorm: float | None = setting(
        None, or_none_rule(POSITIVE), "Clip gradients to this global norm.", "Optimizer"
    )
    ema: float | None = setting(
        None, or_none_rule(BETWEEN_0_AND_1), "Momentum of the weights' moving average.", "Optimizer"
    )
    epochs: int = setting(60, COUNT, "Number of epochs.")
    batch_size: int = setting(256, COUNT, "Images per step.", "Optimizer")
    validation_split: float = setting(
        0.1, BETWEEN_0_AND_1, "Share of the training images for validation.", "Model and images"
    )
    augmentation: Augmentation | None = setting(
        None, None, "none, digits or clothes; a recipe file may set its fields.", "Augmentation"
    )
    augmentation_final_epochs: float = setting(
        0.0, NOT_NEGATIVE, "Number of last epochs in which augmentation weakens.", "Augmentation"
    )
    augmentation_final_strength: float = setting(
        0.0, FROM_0_TO_1, "Augmentation strength in the last epoch.", "Augmentation"
    )
    seed: int = setting(0, SEED, "Random seed; the same run on every backend.", "Run")

    def __post_init__(self) -> None:
        if isinstance(self.no_weight_decay, list):
            object.__setattr__(self, "no_weight_decay", tuple(self.no_weight_decay))
        try:
            object.__setattr__(self, "augmentation", load_augmentation(self.augmentation))
        except ValueError as error:
            raise ValueError(
                f"The recipe's `augmentation` must be a name or its fields. {error} "
                f"Received: augmentation={self.augmentation!r}"
            ) from None
        check(self, "The recipe's ")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                "The recipe's `final_learning_rate` must not be above `learning_rate`. "
                f"Received: final_learning_rate={self.final_learning_rate}, learning_rate={self.learning_rate}"
            )
        if self.schedule == "constant" and self.final_learning_rate:
            raise ValueError(
                "The recipe's `final_learning_rate` requires `schedule='cosine'` or `'linear'`. "
                f"Received: schedule='constant', final_learning_rate={self.final_learning_rate}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                "The recipe's `warmup_epochs` must be fewer than `epochs`. "
                f"Received: warmup_epochs={self.warmup_epochs}, epochs={self.epochs}"
            )
        if self.augmentation_final_epochs > self.epochs:
            raise ValueError(
                "The recipe's `augmentation_final_epochs` must not be more than `epochs`. "
                f"Received: augmentation_final_epochs={self.augmentation_final_epochs}, epochs={self.epochs}"
            )

    def replace(self, **values: Any) -> Recipe:
        """A recipe with some values changed; those that are None stay.

        Args:
            **values: fields by name.

        Returns:
            A new `Recipe`.

        Raises:
            ValueError: if a value is out of range.
        """
        return dataclasses.replace(self, **{field: value for field, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return {
            **dataclasses.asdict(self),
            "no_weight_decay": list(self.no_weight_decay),
            "augmentation": "none" if self.augmentation is None else self.augmentation.to_json(),
        }

    @classmethod
    def from_json(cls, values: Any) -> Recipe:
        """The recipe of a JSON object; fields that it leaves out are the course's, and old names are understood.

        Args:
            values: the fields by name.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: if it is no object, names a field that there is not, or holds a value out of range.
        """
        values = present_names(values)
        _checks.json_object("A recipe", values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)

    # What becomes of the images. --------------------------------------------------------------------------------------

    def augmentation_strength(self, epoch: int) -> float:
        """How strong the augmentation is in an epoch.

        Args:
            epoch: the epoch, counted from 0.

        Returns:
            The strength, from 0 to 1.

        Examples:
            >>> recipe = Recipe(epochs=5, augmentation="digits", augmentation_final_epochs=2)
            >>> [recipe.augmentation_strength(epoch) for epoch in range(5)]
            [1.0, 1.0, 1.0, 0.5, 0.0]
        """
        weakening = epoch + 1 - (self.epochs - self.augmentation_final_epochs)
        if weakening <= 0 or not self.augmentation_final_epochs:
            return 1.0
        return 1.0 - (1.0 - self.augmentation_final_strength) * min(weakening / self.augmentation_final_epochs, 1.0)

    def augment(self, images: np.ndarray, labels: np.ndarray, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment a batch at the strength of its epoch: the `augment` of `datasets.Batches`.

        Args:
            images: uint8 `(n, H, W, C)`.
            labels: `(n,)`, or rows `(n, num_classes)`.
            epoch: the epoch, counted from 0.
            index: the batch within the epoch, counted from 0.

        Returns:
            `(images, labels)`, as `datasets.Augmentation` gives them.
        """
        augmentation = self.augmentation or Augmentation()
        return augmentation(images, labels, self.seed, epoch, index, self.augmentation_strength(epoch))

    @property
    def targets_are_rows(self) -> bool:
        """Whether a label is a row of shares of every class, not a class's number."""
        return bool(self.label_smoothing) or (self.augmentation is not None and self.augmentation.mixes)

    # What Keras makes of it. ------------------------------------------------------------------------------------------

    def learning_rate_schedule(self, steps_per_epoch: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate by step.

        Args:
            steps_per_epoch: number of batches in an epoch.

        Returns:
            A number if it is constant, else a Keras schedule.
        """
        warmup_steps = round(self.warmup_epochs * steps_per_epoch)
        if self.schedule == "constant" and not warmup_steps:
            return float(self.learning_rate)  # Keras takes no whole number
        decay_steps = max(self.epochs * steps_per_epoch - warmup_steps, 1)
        if self.schedule == "cosine":
            final_share = self.final_learning_rate / self.learning_rate
            if not warmup_steps:
                return keras.optimizers.schedules.CosineDecay(self.learning_rate, decay_steps, alpha=final_share)
            return keras.optimizers.schedules.CosineDecay(
                0.0, decay_steps, alpha=final_share, warmup_target=self.learning_rate, warmup_steps=warmup_steps
            )
        final = self.learning_rate if self.schedule == "constant" else self.final_learning_rate
        return LinearWithWarmup(self.learning_rate, final, warmup_steps, decay_steps)

    def build_optimizer(self, model: keras.Model, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """The optimizer of a model.

        Args:
            model: the model that it will train.
            steps_per_epoch: number of batches in an epoch.

        Returns:
            A Keras optimizer, built for the trainable weights of `model`.

        Raises:
            ValueError: as `exempt_from_decay`.
        """
        options: dict[str, Any] = {"learning_rate": self.learning_rate_schedule(steps_per_epoch)}
        if self.optimizer == "sgd":
            options |= {"momentum": 0.9, "nesterov": True}
        if self.ema is not None:
            options |= {"use_ema": True, "ema_momentum": self.ema}
        exempt = self.exempt_from_decay(model) if self.weight_decay else []
        paths = {v.path for v in exempt}
        decays = any(v.path not in paths for v in model.trainable_variables)
        rate = self.weight_decay if decays else 0  # Keras on torch fails over an optimizer that exempts all
        # AdamW wants a number, the others take 0 for "decay by nothing, at a cost".
        weight_decay = rate if self.optimizer == "adamw" else rate or None
        optimizer_class = getattr(keras.optimizers, OPTIMIZERS[self.optimizer])
        optimizer = optimizer_class(weight_decay=weight_decay, global_clipnorm=self.global_clipnorm, **options)
        if rate and exempt:
            optimizer.exclude_from_weight_decay(var_list=exempt)
        optimizer.build(model.trainable_variables)
        return optimizer

    def exempt_from_decay(self, model: keras.Model) -> list[keras.Variable]:
        """The variables that `no_weight_decay` exempts.

        Args:
            model: the model whose variables are meant.

        Returns:
            Those of its trainable variables that have an entry of `no_weight_decay` in their path.

        Raises:
            ValueError: if an entry is in the path of no variable.
        """
        # The name of the model itself, which Keras puts first, is no part of what a variable is called.
        paths = {v.path.removeprefix(f"{model.name}/"): v for v in model.weights}
        for part in self.no_weight_decay:
            if not any(part in path for path in paths):
                raise ValueError(
                    f"The recipe's `no_weight_decay` names {part!r}, and no variable of {model.name} is called so; "
                    f"they are called {', '.join(list(paths)[:4])}..."
                )
        exempt = [v for path, v in paths.items() if any(part in path for part in self.no_weight_decay)]
        return [v for v in exempt if v.trainable]  # those that are frozen do not decay either


def present_names(values: Any) -> Any:
    """A JSON object of a recipe, an older version's too, with the names of this version.

    Examples:
        >>> present_names({"epochs": 4, "clip_norm": 1.0})
        {'epochs': 4, 'global_clipnorm': 1.0}
    """
    return {RENAMED.get(name, name): value for name, value in values.items()} if isinstance(values, dict) else values
