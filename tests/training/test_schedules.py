import numpy as np
import pytest

from keras_vit_edu.training.schedules import cosine_with_warmup

pytestmark = [pytest.mark.lowest, pytest.mark.any_backend, pytest.mark.quick]


def test_the_warm_up_climbs_in_equal_steps_to_the_rate():
    rates = [float(cosine_with_warmup(1e-3, 4, 6)(step)) for step in range(10)]
    climbing = [1e-3 * (0.25 + 0.75 * step / 4) for step in range(4)]
    falling = [1e-3 * (1 + np.cos(np.pi * step / 6)) / 2 for step in range(6)]
    np.testing.assert_allclose(rates, climbing + falling, atol=1e-9)
