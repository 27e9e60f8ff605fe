"""The console of the command. It escapes control characters, because class and file names are untrusted."""

import json
from typing import Any

import rich.console
from rich.text import Text

from keras_vit_edu._files import printable


class Console(rich.console.Console):
    """Rich's console, which escapes control characters in every text. Newlines stay, so escape names before.

    Text is printed as it is: no markup, no names of emoji, no colours for numbers.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def print_json(value: Any) -> None:
    """Print JSON with every control character escaped. NaN raises an error, because JSON does not have it."""
    print(json.dumps(value, indent=2, allow_nan=False))
