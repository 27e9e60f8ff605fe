"""How to fine-tune: everything but the model and the images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_vit_edu import _backend
from keras_vit_edu._settings import (
    ABOVE_0_TO_1,
    COUNT,
    FROM_0_BELOW_1,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Rule,
    check,
    one_of_rule,
    or_none_rule,
    setting,
    whole_rule,
)
from keras_vit_edu.training.recipe import Recipe

if not _backend.ONLY_HELP:
    from keras_vit_edu import _checks
    from keras_vit_edu.datasets import Augmentation, load_augmentation
    from keras_vit_edu.transfer.freezing import TrainableCount
    from keras_vit_edu.transfer.lora import are_projections

METHODS = ("probe", "lp-ft", "lora", "full")
PHOTOGRAPHS = "photographs"
PROBE = "probe"  # its name in run.json; the tuning has there the name of its method
TUNING_RATES = {"lp-ft": 1e-4, "full": 1e-4, "lora": 1e-3}
WARMUP_SHARE = 0.1  # of the epochs, if nothing else is said
# Older names of fields. (`warmup` was a share of the epochs.)
RENAMED = {
    "clip_norm": "global_clipnorm",
    "validation_share": "validation_split",
    "projections": "target_layer_names",
}
BLOCKS = or_none_rule(whole_rule("a whole number, 0 or more", "x>=0", lambda value: value >= 0))
PROJECTIONS = Rule(
    lambda value: isinstance(value, tuple) and are_projections(value),
    "some of q_dense, k_dense, v_dense, out_dense, each once",
)
TRUE_OR_FALSE = Rule(lambda value: isinstance(value, bool), "True or False")


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
        warmup_epochs: how long the tuning's rate climbs first, 0 or more, less than `epochs`; then cosine to 0. None
            for a tenth of `epochs`.
        layer_decay: what the rate is multiplied by from each layer to the one below, in (0, 1]; LoRA has none.
        blocks: how many of the last blocks train, as `unfreeze_last` takes it; None for everything. Not for LoRA.
        weight_decay: of the tuning, decoupled (AdamW), 0 or more; biases, normalisations, positions and prefix tokens
            do not decay, and neither does the probe.
        global_clipnorm: longest gradient, all weights taken together; None for no clipping.
        rank: of LoRA.
        alpha: how much LoRA's additions count; None for `rank`.
        target_layer_names: where LoRA adds, as `add_lora` takes it.
        augmentation: how the tuning varies its images: `"photographs"` (mirrored, turned by up to 10 degrees, scaled by
            up to 15 %, shifted by up to 1/14 of the side), a `datasets.Augmentation`, its JSON object, or None.
            Mirrored letters and digits are others: there give one of your own.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        batch_size: images per step.
        validation_split: what is kept of every class for validation if no other images are given, in [0, 1); 0 for
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

    method: str = setting(
        "lp-ft", one_of_rule(METHODS), "probe: the head only; lp-ft: the probe, then all; full: all at once."
    )
    probe_epochs: int = setting(20, COUNT, "Epochs of the probe.")
    probe_learning_rate: float = setting(1e-2, POSITIVE, "Highest learning rate of the probe.", "Learning rate")
    epochs: int = setting(10, COUNT, "Epochs of the tuning.")
    learning_rate: float | None = setting(
        None,
        or_none_rule(POSITIVE),
        "Highest learning rate of the tuning.",
        "Learning rate",
        shown_default="1e-4, or 1e-3 with lora",
    )
    warmup_epochs: float | None = setting(None, or_none_rule(NOT_NEGATIVE))
    layer_decay: float = setting(
        0.75, ABOVE_0_TO_1, "Factor of the learning rate per layer downwards.", "Learning rate"
    )
    blocks: int | None = setting(
        None, BLOCKS, "Number of last blocks to tune.", "What trains", shown_default="the whole model"
    )
    weight_decay: float = setting(0.05, NOT_NEGATIVE, "Decoupled weight decay.", "Optimizer")
    global_clipnorm: float | None = setting(1.0, or_none_rule(POSITIVE))
    rank: int = setting(8, COUNT, "LoRA rank.", "What trains")
    alpha: float | None = setting(None, or_none_rule(POSITIVE))
    target_layer_names: tuple[str, ...] = setting(("q_dense", "v_dense"), PROJECTIONS)
    augmentation: Any = setting(PHOTOGRAPHS, None, "photographs, none, digits or clothes.", "Model and images")
    label_smoothing: float = setting(0.0, FROM_0_BELOW_1, "Label smoothing.", "Optimizer")
    batch_size: int = setting(32, COUNT, "Images per step.", "Optimizer")
    validation_split: float = setting(0.2, FROM_0_BELOW_1, "Share of every class for validation.", "Model and images")
    new_head: bool = setting(True, TRUE_OR_FALSE)
    seed: int = setting(0, SEED, "Random seed; the same run on every backend.", "Run")

    def __post_init__(self) -> None:
        if isinstance(self.target_layer_names, list):
            object.__setattr__(self, "target_layer_names", tuple(self.target_layer_names))
        if self.augmentation != PHOTOGRAPHS:
            try:
                object.__setattr__(self, "augmentation", load_augmentation(self.augmentation))
            except ValueError as error:
                raise ValueError(
                    f"`augmentation` must be {PHOTOGRAPHS!r} or one of the datasets' own: {error} "
                    f"Received: augmentation={self.augmentation!r}"
                ) from None
        check(self)
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(
                "`warmup_epochs` must be fewer than `epochs`. "
                f"Received: warmup_epochs={self.warmup_epochs}, epochs={self.epochs}"
            )
        if self.method == "lora" and self.blocks is not None:
            raise ValueError(f"`blocks` does not go with LoRA, which is added to all. Received: blocks={self.blocks}")

    def replace(self, **values: Any) -> FineTuning:
        """The options with some values changed; those that are None stay.

        Args:
            **values: fields by name.

        Returns:
            New `FineTuning`.

        Raises:
            ValueError: if a value is out of range.
        """
        return dataclasses.replace(self, **{field: value for field, value in values.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """The options as JSON holds them."""
        values = {**dataclasses.asdict(self), "target_layer_names": list(self.target_layer_names)}
        if self.augmentation is None:
            values["augmentation"] = "none"
        return values

    @classmethod
    def from_json(cls, values: Any) -> FineTuning:
        """The options of a JSON object; fields that it leaves out have their defaults, and old names are understood.

        Args:
            values: the fields by name.

        Returns:
            `FineTuning`.

        Raises:
            ValueError: if it is no object, names a field that there is not, or holds a value out of range.
        """
        values = present_names(values)
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
            warmup_epochs=WARMUP_SHARE * self.epochs if self.warmup_epochs is None else self.warmup_epochs,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            global_clipnorm=self.global_clipnorm,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def augmentation_at(self, height: int, width: int) -> Augmentation | None:
        """How the tuning varies its images.

        Args:
            height: height of the model's images, in pixels.
            width: their width.

        Returns:
            An `Augmentation`, or None for none.

        Examples:
            >>> FineTuning().augmentation_at(224, 224).shift
            16.0
        """
        if self.augmentation != PHOTOGRAPHS:
            return self.augmentation
        return Augmentation(rotation=10, shift=min(height, width) / 14, scale=0.15, mirror=0.5, fill=128)


def present_names(values: Any) -> Any:
    """A JSON object of options, an older version's too, with the names of this version.

    Examples:
        >>> present_names({"epochs": 4, "warmup": 0.5, "clip_norm": 1.0})
        {'epochs': 4, 'global_clipnorm': 1.0, 'warmup_epochs': 2.0}
    """
    if not isinstance(values, dict):
        return values
    now = {RENAMED.get(name, name): value for name, value in values.items() if name != "warmup"}
    if "warmup" in values:  # was a share of the epochs
        share, epochs = values["warmup"], now.get("epochs", FineTuning().epochs)
        is_product = _checks.is_number(share) and _checks.is_number(epochs) and share != WARMUP_SHARE
        now["warmup_epochs"] = share * epochs if is_product else None if share == WARMUP_SHARE else share
    return now


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
