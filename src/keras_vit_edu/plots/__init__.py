"""All figures. The only package that imports matplotlib."""

from keras_vit_edu._install import install_command

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise ImportError(f"Figures need matplotlib: {install_command('cli')}") from None

from keras_vit_edu.plots.explanations import (
    attention_distances,
    attention_lines,
    heads_and_blocks,
    maps_side_by_side,
    patches_of,
    position_similarities,
)
from keras_vit_edu.plots.sheets import (
    Figure,
    augmentation,
    classified,
    classified_photographs,
    confusion_matrix,
    learning_curve,
    mistakes,
)

__all__ = [
    "Figure",
    "attention_distances",
    "attention_lines",
    "augmentation",
    "classified",
    "classified_photographs",
    "confusion_matrix",
    "heads_and_blocks",
    "learning_curve",
    "maps_side_by_side",
    "mistakes",
    "patches_of",
    "position_similarities",
]
