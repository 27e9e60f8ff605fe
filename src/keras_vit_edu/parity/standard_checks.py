"""The checks that come with the package. The tolerances are those of the documentation.

Each file that is imported here enters its checks into the list, in the order they run.
"""

from keras_vit_edu.parity import bit_checks, layer_checks, training_checks  # noqa: F401
from keras_vit_edu.parity.checks import CHECKS, Check


def standard() -> dict[str, Check]:
    """All checks that come with the package, by name, in the order they run."""
    return dict(CHECKS)
