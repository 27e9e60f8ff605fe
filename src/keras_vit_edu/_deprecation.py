"""Warn that a public name will be removed. See `docs/deprecations.md` for the policy, and list every use there."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Named = TypeVar("Named", bound=Callable)

MINOR_VERSIONS = 2  # how long a name lives after its warning


def deprecated(since: str, use: str) -> Callable[[Named], Named]:
    """Decorator: a function or class warns when it is called.

    Args:
        since: first version that warns, such as `"0.2.0"`.
        use: what to use instead.

    Returns:
        The decorator. A class stays the same class. Only its constructor warns.

    Examples:
        >>> def area(side):
        ...     return side**2
        >>> @deprecated(since="0.2.0", use="area")
        ... def surface(side):
        ...     return area(side)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     surface(3)
        9
        >>> print(caught[0].message)
        `surface` is deprecated since 0.2.0 and will be removed in 0.4.0. Use `area` instead.
    """

    def decorate(named: Named) -> Named:
        function: Any = named.__init__ if isinstance(named, type) else named  # type: ignore[misc]

        @functools.wraps(function)
        def warning(*args: Any, **kwargs: Any) -> Any:
            _warn(named.__name__, since, use)
            return function(*args, **kwargs)

        warning.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # Keras reads that of a layer
        if isinstance(named, type):
            named.__init__ = warning  # type: ignore[misc]
            return named
        return warning  # type: ignore[return-value]

    return decorate


def deprecated_argument(name: str, since: str, use: str) -> Callable[[Named], Named]:
    """Decorator: a function warns when it receives the argument `name`, which only works as a keyword.

    Args:
        name: the deprecated argument. If it is still a parameter of the function, its value is passed on unchanged.
            Otherwise it was renamed, and its value is passed on as `use`.
        since: first version that warns, such as `"0.2.0"`.
        use: the argument to use instead.

    Returns:
        The decorator. For a class, decorate `__init__`.

    Raises:
        TypeError: from the decorated function, if it receives both the old and the new name.

    Examples:
        >>> @deprecated_argument("width", since="0.2.0", use="side")
        ... def area(side):
        ...     return side**2
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     area(width=3)
        9
        >>> print(caught[0].message)
        `area(width=...)` is deprecated since 0.2.0 and will be removed in 0.4.0. Use `side` instead.
    """

    def decorate(function: Named) -> Named:
        is_renamed = name not in inspect.signature(function).parameters

        @functools.wraps(function)
        def warning(*args: Any, **kwargs: Any) -> Any:
            if name in kwargs:
                _warn(f"{function.__qualname__.removesuffix('.__init__')}({name}=...)", since, use)
                if is_renamed and use in kwargs:
                    raise TypeError(f"`{name}` is the old name of `{use}`. Received: both")
                if is_renamed:
                    kwargs[use] = kwargs.pop(name)
            return function(*args, **kwargs)

        warning.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return warning  # type: ignore[return-value]

    return decorate


def _warn(what: str, since: str, use: str) -> None:
    major, minor = (int(number) for number in since.split(".")[:2])
    warnings.warn(
        f"`{what}` is deprecated since {since} and will be removed in {major}.{minor + MINOR_VERSIONS}.0. "
        f"Use `{use}` instead.",
        FutureWarning,  # Python hides a DeprecationWarning outside of scripts
        stacklevel=3,
    )
