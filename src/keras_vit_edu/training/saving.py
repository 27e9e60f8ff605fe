"""A model in a `.keras` file that every backend loads."""

from pathlib import Path

import keras

from keras_vit_edu._weights import copy_variables


def save_uncompiled(model: keras.Model, path: str | Path) -> None:
    """Save a model as `.keras` without its optimizer, loss and metrics, so that every backend can load the file.

    (Keras writes the optimizer's class into the file, and on torch that is one that the others do not have.) Dropout
    counters are saved too: training goes on with the masks that would have been next.

    Args:
        model: any Keras model that its configuration describes.
        path: ends in `.keras`.

    Raises:
        ValueError: if its configuration does not describe it, or it has LoRA's matrices in it.
    """
    copy = copy_of_model(model)
    copy_variables(model.variables, copy.variables)
    copy.save(path)


def copy_of_model(model: keras.Model) -> keras.Model:
    """A model like `model`, uncompiled and with new weights.

    Raises:
        ValueError: if its configuration does not describe it.
    """
    try:
        copy = type(model).from_config(model.get_config())
        if not copy.built:  # a subclass
            copy.build_from_config(model.get_build_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            "A model must be one that its configuration describes, to be saved. "
            f"Received: {model.name}, of which Keras says: {reason}"
        ) from error
    same = [tuple(v.shape) for v in copy.variables] == [tuple(v.shape) for v in model.variables]
    if not same:
        raise ValueError(
            f"A model must be one that its configuration describes, to be saved. Received: {model.name}, which has "
            f"{len(model.variables)} variables, where its configuration makes others ({len(copy.variables)})"
        )
    return copy
