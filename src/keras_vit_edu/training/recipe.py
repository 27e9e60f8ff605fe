"""A recipe: everything about a training run but the model and the data."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks, _files, random
from keras_vit_edu.datasets import AUGMENTATIONS, Augmentation, load_augmentation
from keras_vit_edu.training.schedules import LinearWithWarmup

OPTIMIZERS = {
    "adamw": keras.optimizers.AdamW,
    "adam": keras.optimizers.Adam,
    "sgd": keras.optimizers.SGD,
    "lion": keras.optimizers.Lion,
}
MOST = 10**6  # epochs, and images per step
SCHEDULES = ("constant", "cosine", "linear")


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
            as `("bias", "norm", "position_embedding")`. One that no variable contains is an error.
        label_smoothing: share of the target spread over all classes, in [0, 1) (Szegedy et al. 2016).
        clip_norm: longest gradient, all weights taken together; None for no clipping.
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

    name: str = "program-p"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    final_learning_rate: float = 0.0
    weight_decay: float = 1e-4
    no_weight_decay: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    epochs: int = 60
    batch_size: int = 256
    validation_split: float = 0.1
    augmentation: Augmentation | None = None
    augmentation_final_epochs: float = 0.0
    augmentation_final_strength: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.no_weight_decay, list):
            object.__setattr__(self, "no_weight_decay", tuple(self.no_weight_decay))
        try:
            object.__setattr__(self, "augmentation", load_augmentation(self.augmentation))
        except ValueError as error:
            raise ValueError(
                f"The recipe's `augmentation` must be one: {error} Received: augmentation={self.augmentation!r}"
            ) from None
        for field, (is_right, wanted) in RULES.items():
            value = getattr(self, field)
            if not is_right(value):
                raise ValueError(f"The recipe's `{field}` must be {wanted}. Received: {field}={value!r}")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                "The recipe's `final_learning_rate` must not be above `learning_rate`. "
                f"Received: final_learning_rate={self.final_learning_rate}, learning_rate={self.learning_rate}"
            )
        if self.schedule == "constant" and self.final_learning_rate:
            raise ValueError(
                "The recipe's `schedule` must lead to `final_learning_rate`, which a constant one does not. "
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

    def replace(self, **values: Any) -> "Recipe":
        """A recipe with some values changed; those that are None stay."""
        return dataclasses.replace(self, **{field: value for field, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return {
            **dataclasses.asdict(self),
            "no_weight_decay": list(self.no_weight_decay),
            "augmentation": "none" if self.augmentation is None else self.augmentation.to_json(),
        }

    @classmethod
    def from_json(cls, values: Any) -> "Recipe":
        """The recipe of a JSON object; fields that it leaves out are the course's.

        Raises:
            ValueError: if it is no object, names a field that there is not, or holds a value out of range.
        """
        _checks.json_object("A recipe", values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)

    # What becomes of the images. --------------------------------------------------------------------------------------

    def augmentation_strength(self, epoch: int) -> float:
        """How strong the augmentation is in an epoch, counted from 0.

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
        """The augmentation of batch `index` of an epoch, at the strength of that epoch: what `Batches` takes."""
        augmentation = self.augmentation or Augmentation()
        return augmentation(images, labels, self.seed, epoch, index, self.augmentation_strength(epoch))

    @property
    def targets_are_rows(self) -> bool:
        """Whether a label is a row of shares of every class, not a class's number."""
        return bool(self.label_smoothing) or (self.augmentation is not None and self.augmentation.mixes)

    # What Keras makes of it. ------------------------------------------------------------------------------------------

    def learning_rate_schedule(self, steps_per_epoch: int) -> Any:
        """The rate by step: a number, or a Keras schedule."""
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
        """The optimizer for the weights of `model`, built."""
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
        optimizer = OPTIMIZERS[self.optimizer](weight_decay=weight_decay, global_clipnorm=self.clip_norm, **options)
        if rate and exempt:
            optimizer.exclude_from_weight_decay(var_list=exempt)
        optimizer.build(model.trainable_variables)
        return optimizer

    def exempt_from_decay(self, model: keras.Model) -> list[keras.Variable]:
        """The variables that `no_weight_decay` exempts; a `ValueError` if one of its parts exempts none."""
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


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Rule = tuple[Callable[[Any], bool], str]


def number_rule(is_right: Callable[[Any], bool], wanted: str) -> Rule:
    return lambda value: _checks.is_number(value) and is_right(value), wanted


def one_of_rule(choices: Sequence[str]) -> Rule:
    return lambda value: value in choices, f"one of {', '.join(choices)}"


def or_none_rule(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or none"


COUNT: Rule = (lambda value: is_whole(value) and 1 <= value <= MOST, f"a whole number, 1 or more, at most {MOST:,}")
# What each field may be, and how to say so.
RULES: dict[str, Rule] = {
    "name": (lambda value: isinstance(value, str) and value != "", "a text"),
    "optimizer": one_of_rule(tuple(OPTIMIZERS)),
    "learning_rate": number_rule(lambda value: value > 0, "a number above 0"),
    "schedule": one_of_rule(SCHEDULES),
    "warmup_epochs": number_rule(lambda value: value >= 0, "a number, 0 or more"),
    "final_learning_rate": number_rule(lambda value: value >= 0, "a number, 0 or more"),
    "weight_decay": number_rule(lambda value: value >= 0, "a number, 0 or more"),
    "no_weight_decay": (
        lambda value: isinstance(value, tuple) and all(isinstance(part, str) and part for part in value),
        "a list of texts",
    ),
    "label_smoothing": number_rule(lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "clip_norm": or_none_rule(number_rule(lambda value: value > 0, "a number above 0")),
    "ema": or_none_rule(number_rule(lambda value: 0 < value < 1, "a number in (0, 1)")),
    "epochs": COUNT,
    "batch_size": (
        lambda value: is_whole(value) and 1 <= value <= MOST,
        f"a whole number, 1 or more, at most {MOST:,}",
    ),
    "validation_split": number_rule(lambda value: 0 < value < 1, "a number in (0, 1)"),
    "augmentation_final_epochs": number_rule(lambda value: value >= 0, "a number, 0 or more"),
    "augmentation_final_strength": number_rule(lambda value: 0 <= value <= 1, "a number in [0, 1]"),
    "seed": (lambda value: is_whole(value) and 0 <= value < random.SEED_LIMIT, "a whole number in [0, 2**31)"),
}

# What trains a small transformer on little data: Steiner et al. 2022 ("How to train your ViT?", arXiv 2106.10270) on
# augmentation against regularisation, Hassani et al. 2021 on the optimizer; the average of the weights (Polyak and
# Juditsky 1992) takes out the noise of the last steps. Images are nearly clean at the end, as the test's are.
SMALL_DATA = Recipe(
    name="small-data",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_epochs=3,
    final_learning_rate=1e-6,
    weight_decay=0.05,
    no_weight_decay=("bias", "norm", "position_embedding"),
    label_smoothing=0.05,
    clip_norm=1.0,
    ema=0.999,
    epochs=50,
    augmentation=AUGMENTATIONS["digits"],
    augmentation_final_epochs=5,
    augmentation_final_strength=0.3,
)
HYBRID = SMALL_DATA.replace(
    name="hybrid", learning_rate=2e-3, warmup_epochs=2, epochs=36, batch_size=128, validation_split=0.05
)

RECIPES = {
    "program-p": Recipe(),
    "pure": HYBRID.replace(name="pure", learning_rate=1.5e-3),
    "hybrid": HYBRID,
    "fashion-hybrid": HYBRID.replace(
        name="fashion-hybrid", epochs=32, augmentation=AUGMENTATIONS["clothes"], augmentation_final_strength=0.5
    ),
    "cnn": SMALL_DATA.replace(
        name="cnn", no_weight_decay=("bias",), epochs=30, augmentation="none", augmentation_final_epochs=0.0
    ),
    "cnn-augmented": HYBRID.replace(name="cnn-augmented", no_weight_decay=("bias",)),
}


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A recipe by its name, or from a JSON file.

    Raises:
        ValueError: if there is neither, or the file is no JSON or no recipe.
    """
    if str(name_or_file) in RECIPES:
        return RECIPES[str(name_or_file)]
    file = Path(name_or_file)
    if not file.is_file():
        hint = _checks.did_you_mean(str(name_or_file), RECIPES) or f"There are {', '.join(RECIPES)}."
        raise ValueError(f"There is no recipe {str(name_or_file)!r}, and no such file. {hint}")
    try:
        values = _files.read_json(file)
    except ValueError as error:
        raise ValueError(f"The recipe cannot be read. {error}") from None
    try:
        return Recipe.from_json({"name": file.stem, **values} if isinstance(values, dict) else values)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
