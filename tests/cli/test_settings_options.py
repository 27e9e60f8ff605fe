"""The options of `train` and `fine-tune` are the fields of `Recipe` and `FineTuning`."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer

from keras_vit_edu import cli
from keras_vit_edu._settings import COUNT, PANELS, POSITIVE, one_of_rule, setting
from keras_vit_edu.cli.settings_options import PanelledCommand, with_options_of
from keras_vit_edu.training import Recipe
from keras_vit_edu.transfer import FineTuning

pytestmark = [pytest.mark.any_backend, pytest.mark.quick]
FIRST = {
    "train": ["--preset", "--dataset", "--data", "--recipe", "--run", "--epochs"],
    "fine-tune": ["--preset", "--run", "--options", "--method", "--probe-epochs", "--epochs"],
}
ONLY_IN_FILES = {
    Recipe: {"name"},
    FineTuning: {"warmup_epochs", "global_clipnorm", "alpha", "target_layer_names", "new_head"},
}


@dataclass(frozen=True)
class Tea:
    """What a cup is made with."""

    kind: str = setting("green", one_of_rule(("green", "black")), "Kind of leaves.")
    lumps_of_sugar: int | None = setting(None, COUNT, "Sugar.", "Run", shown_default="as you like")
    minutes: float = setting(3.0, POSITIVE, "How long it draws.", "Optimizer")
    herbs: tuple[str, ...] = setting((), None, "What else.", "Optimizer")
    cup: str = setting("blue", None)


def brew(*arguments, show_defaults=True):
    """What a verb with the fields of `Tea` gets, or its exit status."""
    found = []

    @with_options_of(Tea, show_defaults)
    def verb(cups: Annotated[int, typer.Option(help="Cups.", rich_help_panel="Run")] = 1, **settings: Any) -> None:
        found.append({"cups": cups, **settings})

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=PanelledCommand)(verb)
    app(arguments, standalone_mode=False)
    return found[0] if found else None


def test_the_values_come_as_they_are_given_and_none_for_the_others():
    assert brew() == {"cups": 1, "kind": None, "lumps_of_sugar": None, "minutes": None, "herbs": None}
    given = brew("--minutes", "2", "--herbs", "mint", "--herbs", "sage", "--lumps-of-sugar", "3", "--cups", "2")
    assert given == {"cups": 2, "kind": None, "lumps_of_sugar": 3, "minutes": 2.0, "herbs": ["mint", "sage"]}


def test_the_help_has_ranges_defaults_and_headings(capsys):
    brew("--help")
    text = capsys.readouterr().out
    assert re.findall(r"^(\S.*):$", text, re.M) == ["Options", "Optimizer", "Run"]
    words = " ".join(text.split())
    assert "--kind green|black Kind of leaves. [default: green]" in words
    assert re.search(r"--minutes \S+ How long it draws. \[default: 3.0; x>0\]", words)
    assert re.search(r"--lumps-of-sugar \S+ Sugar. \[default: as you like; x>=1\]", words)
    assert "--cup " not in text
    brew("--help", show_defaults=False)
    assert "[x>0]" in capsys.readouterr().out


def options_by_heading(verb, capsys, monkeypatch):
    """The names of the options under each heading of a verb's help, on 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    _, *parts = re.split(r"^(\S.*):$", text, flags=re.M)
    found = [re.findall(r"^  (?:-h, )?(--[a-z0-9-]+)", part, re.M) for part in parts[1::2]]
    return dict(zip(parts[::2], found, strict=True))


@pytest.mark.parametrize(("verb", "settings"), [("train", Recipe), ("fine-tune", FineTuning)])
def test_every_field_has_its_option_whole_on_80_columns(verb, settings, capsys, monkeypatch):
    found = options_by_heading(verb, capsys, monkeypatch)
    assert found["Options"] == FIRST[verb]
    headings = [name for name in found if name not in ("Arguments", "Options")]
    assert headings == [name for name in PANELS if name in headings]
    assert found["Run"][-1] == "--help"
    shown = {name for names in found.values() for name in names}
    fields = {field.name for field in dataclasses.fields(settings)} - ONLY_IN_FILES[settings]
    assert shown >= {f"--{name.replace('_', '-')}" for name in fields}
