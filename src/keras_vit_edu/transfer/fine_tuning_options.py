"""How to fine-tune: everything but the model and the images."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_vit_edu import _checks
from keras_vit_edu.datasets import Augmentation, load_augmentation
from keras_vit_edu.training.recipe import COUNT, Recipe, Rule, is_whole, number_rule, one_of_rule, or_none_rule
from keras_vit_edu.training.recipe import RULES as RECIPE_RULES
from keras_vit_edu.transfer.freezing import TrainableCount
from keras_vit_edu.transfer.lora import PROJECTIONS, are_projections

METHODS = ("probe", "lp-ft", "lora", "full")
PHOTOGRAPHS = "photographs"
PROBE = "probe"  # its name in run.json; the tuning has there the name of its method
TUNING_RATES = {"lp-ft": 1e-4, "full": 1e-4, "lora": 1e-3}


@dataclass(frozen=True)
class FineTuning:
    """How to fine-tune a pretrained classifier. The defaults suit some hundred photographs.

    There are up to two phases. The *probe* trains the head on features that are computed once, without augmentation:
    seconds. The *tuning* then trains what the method says, from the probe's head on: a random head would spoil the
    pretrained layers with its first, large gradients (Kumar et al. 2022).

    Attributes:
        method: `"probe"`: the head alone. `"lp-ft"`: probe, then `blocks`. `"lora"`: probe, then small additions to the
            attention and the head. `"full"`: `blocks` at once, without a probe.
        probe_epochs: how often the probe goes through the images; 1 or more.
        probe_learning_rate: its highest rate, above 0; cosine from there to 0.
        epochs: how often the tuning goes through the images; 1 or more.
        learning_rate: the tuning's highest rate, for the head, above 0; None for 1e-4, and 1e-3 with LoRA.
        warmup: the share of the tuning's steps over which the rate climbs, in [0, 1); then cosine to 0.
        layer_decay: what the rate is multiplied by from each layer to the one below, in (0, 1]; LoRA has none.
        blocks: how many of the last blocks train, as `unfreeze_last` takes it; None for everything. Not for LoRA.
        weight_decay: of the tuning, decoupled (AdamW), 0 or more; biases, normalisations, positions and prefix tokens
            do not decay, and neither does the probe.
        clip_norm: longest gradient, all weights taken together; None for no clipping.
        rank: of LoRA.
        alpha: how much LoRA's additions count; None for `rank`.
        projections: where LoRA adds, as `add_lora` takes it.
        augmentation: how the tuning varies its images: `"photographs"` (mirrored, turned by up to 10 degrees, scaled by
            up to 15 %, shifted by up to 1/14 of the side), a `datasets.Augmentation`, its JSON object, or None.
            Mirrored letters and digits are others: there give one of your own.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        batch_size: images per step.
        validation_share: what is kept of every class for validation if no other images are given, in [0, 1); 0 for
            none.
        new_head: begin with a head of zeros; False to go on with the one that is there.
        seed: int in [0, 2**31): of the split, the order of the batches, augmentation, dropout and LoRA.

    Raises:
        ValueError: for a value out of range; the field is named.

    References:
        Kumar, Raghunathan, Jones, Ma, Liang, "Fine-tuning can distort pretrained features and underperform
        out-of-distribution" (ICLR 2022), arXiv 2202.10054: LP-FT.

    Examples:
        >>> FineTuning(method="lora", rank=4).tuning.learning_rate
        0.001
        >>> FineTuning.from_json(FineTuning(epochs=3).to_json()).epochs
        3
    """

    method: str = "lp-ft"
    probe_epochs: int = 20
    probe_learning_rate: float = 1e-2
    epochs: int = 10
    learning_rate: float | None = None
    warmup: float = 0.1
    layer_decay: float = 0.75
    blocks: int | None = None
    weight_decay: float = 0.05
    clip_norm: float | None = 1.0
    rank: int = 8
    alpha: float | None = None
    projections: tuple[str, ...] = ("q_dense", "v_dense")
    augmentation: Any = PHOTOGRAPHS
    label_smoothing: float = 0.0
    batch_size: int = 32
    validation_share: float = 0.2
    new_head: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.projections, list):
            object.__setattr__(self, "projections", tuple(self.projections))
        if self.augmentation != PHOTOGRAPHS:
            try:
                object.__setattr__(self, "augmentation", load_augmentation(self.augmentation))
            except ValueError as error:
                raise ValueError(
                    f"`augmentation` must be {PHOTOGRAPHS!r} or one of the datasets' own: {error} "
                    f"Received: augmentation={self.augmentation!r}"
                ) from None
        for field, (is_right, wanted) in RULES.items():
            if not is_right(getattr(self, field)):
                raise ValueError(f"`{field}` must be {wanted}. Received: {field}={getattr(self, field)!r}")
        if self.method == "lora" and self.blocks is not None:
            raise ValueError(f"`blocks` does not go with LoRA, which is added to all. Received: blocks={self.blocks}")

    def replace(self, **values: Any) -> "FineTuning":
        """The options with some values changed; those that are None stay."""
        return dataclasses.replace(self, **{field: value for field, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        values = {**dataclasses.asdict(self), "projections": list(self.projections)}
        if self.augmentation is None:
            values["augmentation"] = "none"
        return values

    @classmethod
    def from_json(cls, values: Any) -> "FineTuning":
        """The options of a JSON object; fields that it leaves out have their defaults.

        Raises:
            ValueError: if it is no object, names a field that there is not, or holds a value out of range.
        """
        _checks.json_object("Fine-tuning", values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)

    @property
    def probe(self) -> Recipe | None:
        """How the probe trains; None if there is none."""
        if self.method == "full":
            return None
        return Recipe(
            name=PROBE,
            learning_rate=self.probe_learning_rate,
            schedule="cosine",
            weight_decay=0.0,
            label_smoothing=self.label_smoothing,
            epochs=self.probe_epochs,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    @property
    def tuning(self) -> Recipe | None:
        """How the tuning trains, at the height of the head; None if there is none."""
        if self.method == "probe":
            return None
        return Recipe(
            name=self.method,
            learning_rate=TUNING_RATES[self.method] if self.learning_rate is None else self.learning_rate,
            schedule="cosine",
            warmup_epochs=self.warmup * self.epochs,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            clip_norm=self.clip_norm,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def augmentation_at(self, height: int, width: int) -> Augmentation | None:
        """How images of that size in pixels are varied; None if not at all.

        Examples:
            >>> FineTuning().augmentation_at(224, 224).shift
            16.0
        """
        if self.augmentation != PHOTOGRAPHS:
            return self.augmentation
        return Augmentation(rotation=10, shift=min(height, width) / 14, scale=0.15, mirror=0.5, fill=128)


def shown_phase(name: str) -> str:
    """What a person sees a phase called: `"probe"` or `"tuning"`, whatever the method.

    Examples:
        >>> shown_phase("lp-ft")
        'tuning'
    """
    return PROBE if name == PROBE else "tuning"


def what_trains(name: str, count: TrainableCount) -> str:
    """What a phase trains, in words.

    Args:
        name: of the phase, as `run.json` has it.
        count: how many weights train in it.

    Examples:
        >>> what_trains("probe", TrainableCount(65, 65))
        'the head alone is trained, 65 weights'
        >>> what_trains("lora", TrainableCount(65, 1265))
        'the head and the matrices of LoRA are trained, 65 weights'
        >>> what_trains("lp-ft", TrainableCount(1200, 1200))
        'the whole model is trained, 1,200 weights'
        >>> what_trains("full", TrainableCount(600, 1200))
        'the upper part of the model is trained, 600 of its 1,200 weights'
    """
    if name == PROBE:
        return f"the head alone is trained, {count.trainable:,} weights"
    if name == "lora":
        return f"the head and the matrices of LoRA are trained, {count.trainable:,} weights"
    if count.trainable == count.total:
        return f"the whole model is trained, {count.total:,} weights"
    return f"the upper part of the model is trained, {count.trainable:,} of its {count.total:,} weights"


_POSITIVE: Rule = number_rule(lambda value: value > 0, "a number above 0")

# What each field may be, and how to say so.
RULES: dict[str, Rule] = {
    "method": one_of_rule(METHODS),
    "probe_epochs": COUNT,
    "probe_learning_rate": _POSITIVE,
    "epochs": COUNT,
    "learning_rate": or_none_rule(_POSITIVE),
    "warmup": number_rule(lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "layer_decay": number_rule(lambda value: 0 < value <= 1, "a number above 0 and at most 1"),
    "blocks": or_none_rule((lambda value: is_whole(value) and value >= 0, "a whole number, 0 or more")),
    "weight_decay": RECIPE_RULES["weight_decay"],
    "clip_norm": RECIPE_RULES["clip_norm"],
    "rank": COUNT,
    "alpha": or_none_rule(_POSITIVE),
    "projections": (
        lambda value: isinstance(value, tuple) and are_projections(value),
        f"some of {', '.join(PROJECTIONS)}, each once",
    ),
    "label_smoothing": RECIPE_RULES["label_smoothing"],
    "batch_size": COUNT,
    "validation_share": number_rule(lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "new_head": (lambda value: isinstance(value, bool), "True or False"),
    "seed": RECIPE_RULES["seed"],
}
