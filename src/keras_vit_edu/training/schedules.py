"""Learning-rate schedules that Keras does not have."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_vit_edu")
class LinearWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Increases linearly from 0 to `peak` over `warmup_steps`, then decreases linearly to `final` over `decay_steps`.

    Args:
        peak: highest learning rate.
        final: learning rate from step `warmup_steps + decay_steps` on.
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
    """Increase to `peak` in `warmup_steps` equal steps, then decrease to 0 along a cosine.

    Keras's warm-up begins with a learning rate of 0, so its first step changes nothing. This one begins with
    `peak / warmup_steps`.

    Args:
        peak: highest learning rate.
        warmup_steps: 0 for no warm-up.
        decay_steps: 1 or more.
    """
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps)
    return keras.optimizers.schedules.CosineDecay(
        peak / warmup_steps, decay_steps, warmup_target=peak, warmup_steps=warmup_steps
    )
