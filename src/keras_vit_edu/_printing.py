"""What the command prints to: names of a stranger's classes and files reach no terminal unescaped."""

import json
from typing import Any

import rich.console
from rich.text import Text

from keras_vit_edu._files import printable


class Console(rich.console.Console):
    """Rich's console, which escapes control characters in every text; newlines stay, so names are escaped before.

    A text is taken as it is: no markup, no names of emoji, no colours for numbers.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def print_json(value: Any) -> None:
    """Print JSON, in which every control character is escaped; NaN, which JSON has not, is an error."""
    print(json.dumps(value, indent=2, allow_nan=False))
