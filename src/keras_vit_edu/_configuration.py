"""Check untrusted configurations: they must not name code, and must not hold absurd numbers."""

import math
from collections.abc import Mapping
from typing import Any

import keras

# Modules of Keras from which a configuration may name unregistered objects: initializers, activations, dtypes.
KERAS_MODULES = ("keras", "keras.activations", "keras.dtype_policies", "keras.initializers", "keras.random", "builtins")
# Names of whole numbers that are not sizes: Keras identifies shared objects by their address in memory.
NO_SIZES = ("seed", "shared_object_id")
LARGEST_INT = 10**6  # except seeds: no image, width or depth is larger


def check_runs_no_code(value: Any) -> None:
    """Raise ValueError if a configuration names an object that could run code.

    Keras's initializers, activations and dtypes are allowed, and all registered objects. (A configuration can hold a
    Python function, or a layer with one. Keras refuses to load it by default, but one setting permits it.)
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
    """Whether a described object is an initializer, activation or dtype of Keras, or is registered."""
    class_name = described["class_name"]
    if class_name == "__lambda__":
        return False
    if described.get("module") in KERAS_MODULES:
        # Keras looks for a registered name first, and resolves "layers.Lambda" in "keras" to `keras.layers.Lambda`.
        name = described.get("config") if class_name == "function" else class_name
        return (
            isinstance(name, str) and "." not in name and described.get("registered_name") in (None, class_name, name)
        )
    name = described.get("config" if class_name == "function" else "registered_name")
    registered = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    return registered is not None and class_name in ("function", registered.__name__)


def check_numbers(config: Any) -> None:
    """Check that the numbers in a configuration are plausible.

    Raises:
        ValueError: if a whole number is above a million (a seed may be up to 2**63), or if the nesting is too deep.
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
