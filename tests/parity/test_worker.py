"""One backend's process, from the inside."""

import io
import json

import numpy as np
import pytest

from keras_vit_edu.parity.checks import CannotRunHere, Check, Measurement
from keras_vit_edu.parity.compare import EQUAL_BITS
from keras_vit_edu.parity.worker import Worker

pytestmark = pytest.mark.any_backend


def outcome(tmp_path, run):
    """The last step of a check."""
    steps = io.StringIO()
    Worker(tmp_path, "quick", [Check("c", {"row": EQUAL_BITS}, run)], io.StringIO("{}\n"), steps).run()
    said = [json.loads(line)["keras_vit_edu.parity"] for line in steps.getvalue().splitlines()]
    return next(step for step in reversed(said) if "check" in step)


@pytest.mark.parametrize(
    ("raised", "error", "excused"),
    [
        (CannotRunHere("no float16"), "CannotRunHere: no float16", True),
        (OSError("a\nb"), "OSError: a b", False),
        (SystemExit(), "SystemExit", False),
    ],
)
def test_a_check_that_raises(tmp_path, raised, error, excused):
    def run(scene):
        raise raised

    step = outcome(tmp_path, run)
    assert (step["step"], step["error"], step["excused"]) == ("failed", error, excused)


def test_a_check_that_measures(tmp_path):
    step = outcome(tmp_path, lambda scene: [Measurement("row", "a", np.zeros(2))])
    assert (step["step"], step["error"]) == ("measured", None)
