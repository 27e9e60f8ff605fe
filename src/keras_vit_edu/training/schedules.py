"""Learning rates by step that Keras does not have."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class LinearWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 up to `peak` over `warmup_steps`, then down to `final` over `decay_steps`, both in a straight line.

    Args:
        peak: the highest rate.
        final: the rate from step `warmup_steps + decay_steps` on.
        warmup_steps: 0 for no warm-up.
        decay_steps: 1 or more.
    """

    def __init__(self, peak: float, final: float, warmup_steps: int, decay_steps: int) -> None:
        super().__init__()
        self.peak, self.final, self.warmup_steps, self.decay_steps = peak, final, warmup_steps, decay_steps

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        done = keras.ops.clip((step - self.warmup_steps) / self.decay_steps, 0.0, 1.0)
        rate = self.peak + (self.final - self.peak) * done
        return keras.ops.where(step < self.warmup_steps, self.peak * step / max(self.warmup_steps, 1), rate)

    def get_config(self) -> dict[str, Any]:
        names = ("peak", "final", "warmup_steps", "decay_steps")
        return {name: getattr(self, name) for name in names}


def cosine_with_warmup(peak: float, warmup_steps: int, decay_steps: int) -> keras.optimizers.schedules.CosineDecay:
    """Up to `peak` in `warmup_steps` equal steps, then down to 0 along a cosine.

    Keras's warm-up begins with a step of rate 0, which changes nothing. This one begins with `peak / warmup_steps`.

    Args:
        peak: the highest rate.
        warmup_steps: 0 for no warm-up.
        decay_steps: 1 or more.
    """
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps)
    return keras.optimizers.schedules.CosineDecay(
        peak / warmup_steps, decay_steps, warmup_target=peak, warmup_steps=warmup_steps
    )
