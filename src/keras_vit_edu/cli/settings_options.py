"""Options that a verb takes from a dataclass of settings, and a help that lists options under headings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from keras_vit_edu._settings import PANELS

Verb = TypeVar("Verb", bound=Callable[..., None])
TYPES: dict[str, Any] = {"int": int, "float": float, "tuple[str, ...]": list[str]}  # a text for every other type


def with_options_of(settings: type, show_defaults: bool = True) -> Callable[[Verb], Verb]:
    """Give a verb an option for each field of a dataclass that has a help.

    The verb takes the values as `**settings`. A value is None where the option is not given.

    Args:
        settings: the dataclass; see `_settings.setting`.
        show_defaults: whether the defaults of the class are those of the verb.
    """

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [_option(field, show_defaults) for field in dataclasses.fields(settings) if field.metadata["help"]]
        verb.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return verb

    return decorate


def _option(field: dataclasses.Field[Any], show_default: bool) -> inspect.Parameter:
    """`epochs: Annotated[int | None, typer.Option(help="Number of epochs. [default: 10; x>=1]")] = None`."""
    known, rule = field.metadata, field.metadata["rule"]
    annotation = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
    kind = TYPES.get(annotation.removesuffix(" | None"), str)
    default = known["shown_default"] or ("" if field.default is None else str(field.default))
    notes = [f"default: {default}" if show_default and default else "", rule.range if rule else ""]
    option = typer.Option(
        help=f"{known['help']} [{'; '.join(filter(None, notes))}]".removesuffix(" []"),
        metavar="|".join(rule.choices) if rule and rule.choices else "TEXT" if kind == list[str] else None,
        rich_help_panel=known["panel"] or None,
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


class PanelledCommand(TyperCommand):
    """A verb whose help lists the most important options first, then the others under headings.

    In plain text, not in rich's tables: they cut long names on 80 columns.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], **{name: [] for name in PANELS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panel = PANELS[-1] if parameter.name == "help" else getattr(parameter, "rich_help_panel", None) or usual
                panels[panel].append(record)
        for name, records in panels.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
