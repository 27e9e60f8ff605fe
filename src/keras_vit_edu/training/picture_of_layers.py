"""`model.png`: the layers of a model, drawn by Graphviz."""

import importlib.util
import shutil

import keras
from rich.console import Console

from keras_vit_edu._install import install_command
from keras_vit_edu.training.run_folder import RunFolder


def draw_layers(model: keras.Model, run: RunFolder, console: Console) -> None:
    """Draw `model.png` if pydot and Graphviz are there, else say which is missing."""
    missing = []
    if importlib.util.find_spec("pydot") is None:
        missing.append(f"pydot ({install_command('cli')})")
    if shutil.which("dot") is None:
        missing.append("Graphviz's program `dot` (https://graphviz.org; apt install graphviz)")
    reason = f"it needs {' and '.join(missing)}" if missing else None
    if reason is None:
        try:
            keras.utils.plot_model(model, to_file=run / "model.png", show_shapes=True, expand_nested=True, dpi=96)
        except (ImportError, OSError, AssertionError) as error:  # a Graphviz that fails
            reason = str(error) or type(error).__name__
    if reason is not None:
        run.update(notes=[f"no model.png: {reason}"])
        console.print(f"no model.png: {' '.join(reason.split())}")
