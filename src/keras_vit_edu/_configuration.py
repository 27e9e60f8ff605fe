"""Configurations of a stranger: they name no code, and no number that no model has."""

import math
from collections.abc import Mapping
from typing import Any

import keras

# Where the objects in a configuration may come from that nobody registered: initializers, activations, dtypes.
KERAS_MODULES = ("keras", "keras.activations", "keras.dtype_policies", "keras.initializers", "keras.random", "builtins")
# Names of whole numbers that say no size: Keras names shared objects by their address in memory.
NO_SIZES = ("seed", "shared_object_id")
LARGEST_INT = 10**6  # in a configuration, but for seeds: no image, width or depth is as large


def check_runs_no_code(value: Any) -> None:
    """Complain about any object in a configuration but those of Keras that are only numbers, and registered ones.

    (Keras can keep a Python function in a configuration, or a layer with one. By default it refuses to load it, but one
    setting lets it.)
    """
    try:
        _check_runs_no_code(value)
    except RecursionError:
        raise ValueError("The configuration is nested too deeply.") from None


def _check_runs_no_code(value: Any) -> None:
    if isinstance(value, Mapping):
        if "class_name" in value and not _is_harmless(value):
            raise ValueError(
                "The configuration of a preset may name initializers, activations and dtypes of Keras, and what is "
                "registered with `keras.saving.register_keras_serializable`; it holds no code. "
                f"Received: {value['class_name']!r} of module {value.get('module')!r}"
            )
        _check_runs_no_code(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _check_runs_no_code(entry)


def _is_harmless(described: Mapping[str, Any]) -> bool:
    """Whether an object that Keras would make of this is one of Keras's own kinds of numbers, or registered."""
    class_name = described["class_name"]
    if class_name == "__lambda__":
        return False
    if described.get("module") in KERAS_MODULES:
        # Keras looks for a registered name first, and takes "layers.Lambda" of "keras" for `keras.layers.Lambda`.
        name = described.get("config") if class_name == "function" else class_name
        return (
            isinstance(name, str) and "." not in name and described.get("registered_name") in (None, class_name, name)
        )
    name = described.get("config" if class_name == "function" else "registered_name")
    registered = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    return registered is not None and class_name in ("function", registered.__name__)


def check_numbers(config: Any) -> None:
    """Complain about numbers in a configuration that no model has.

    Raises:
        ValueError: if a whole number is beyond a million (a seed may be up to 2**63), or it is nested too deep.
    """
    try:
        _check_numbers(config, "")
    except RecursionError:
        raise ValueError("The configuration is nested too deeply.") from None


def _check_numbers(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_numbers(entry, str(key))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _check_numbers(entry, name)
    elif isinstance(value, int) and abs(value) > (2**63 if name in NO_SIZES else LARGEST_INT):
        raise ValueError(
            f"A whole number in a configuration is at most {LARGEST_INT:,}. Received: {name[:40]} of about "
            f"10**{len(str(abs(value))) - 1 if abs(value) < 10**4000 else 4000}"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"A number in a configuration is finite. Received: {name[:40]}={value}")
