"""Save a model as a `.keras` file that every backend can load."""

from pathlib import Path

import keras

from keras_vit_edu._weights import copy_variables


def save_uncompiled(model: keras.Model, path: str | Path) -> None:
    """Save a model as `.keras` without its optimizer, loss and metrics, so that every backend can load the file.

    (Keras writes the optimizer's class into the file. On torch this class does not exist on the other backends.)
    Dropout counters are saved too: further training continues with the next masks.

    Args:
        model: any Keras model that can be rebuilt from its config.
        path: ends in `.keras`.

    Raises:
        ValueError: if the model cannot be rebuilt from its config, or if it has LoRA matrices.

    Examples:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_uncompiled(model, f"{folder}/model.keras")
        ...     keras.saving.load_model(f"{folder}/model.keras").output_shape
        (None, 2)
    """
    copy = copy_of_model(model)
    copy_variables(model.variables, copy.variables)
    copy.save(path)


def copy_of_model(model: keras.Model) -> keras.Model:
    """An uncompiled copy of `model` with new weights.

    Raises:
        ValueError: if the model cannot be rebuilt from its config.
    """
    try:
        copy = type(model).from_config(model.get_config())
        if not copy.built:  # a subclass
            copy.build_from_config(model.get_build_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"The model cannot be rebuilt from its config, so it cannot be saved. Keras says: {reason} "
            f"Received: {model.name}"
        ) from error
    same = [tuple(v.shape) for v in copy.variables] == [tuple(v.shape) for v in model.variables]
    if not same:
        raise ValueError(
            "The model cannot be rebuilt from its config, so it cannot be saved. "
            f"Received: {model.name} with {len(model.variables)} variables; the config makes {len(copy.variables)}, or "
            "other shapes"
        )
    return copy
