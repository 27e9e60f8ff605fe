import io
import re

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vit_edu.training.progress import ProgressDisplay
from tests.support import BACKEND

pytestmark = [pytest.mark.any_backend, pytest.mark.lowest]


def shown(width=200, **console):
    text = io.StringIO()
    display = ProgressDisplay(
        epochs=3, steps=4, batch_size=2, console=Console(file=text, width=width, highlight=False, **console)
    )
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=["mae", "mse"])
    x, y = np.zeros((8, 2)), np.zeros(8)
    model.fit(x, y, batch_size=2, epochs=3, verbose=0, validation_data=(x, y), callbacks=[display])
    return text.getvalue()


def test_a_plain_line_an_epoch_where_there_is_no_terminal():
    lines = shown(width=80, force_terminal=False).splitlines()
    if BACKEND != "torch":
        assert lines.pop(0) == "compiling the first step"
    assert len(lines) == 3
    for epoch, line in enumerate(lines, start=1):
        assert re.match(rf"epoch {epoch}/3 +\d+\.\d s +\d+ img/s  loss \d+\.\d{{4}}", line)
    assert re.search(r"\d:\d\d left$", lines[0])
    assert not lines[2].endswith("left")


class Clock:
    """`time.monotonic`, that moves when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("keras_vit_edu.training.progress.time.monotonic", clock)
    return clock


def test_rate_and_time_left_of_a_resumed_run_ignore_compiling_steps(clock):
    text = io.StringIO()
    display = ProgressDisplay(10, 4, 6, Console(file=text, width=200, force_terminal=False))
    display.on_train_begin()
    display.on_epoch_begin(6)
    for batch, clock.now in enumerate((100.0, 101.0, 102.0, 150.0)):  # the first and the last compile
        display.on_train_batch_end(batch, {})
    clock.now = 200.0  # the validation compiled too
    display.on_epoch_end(6, {})  # 2 timed steps of 1 s; 12 steps are left
    for epoch in (7, 8):
        display.on_epoch_begin(epoch)
        for batch in range(4):
            clock.now += 1
            display.on_train_batch_end(batch, {})
        clock.now += 5  # validation
        display.on_epoch_end(epoch, {})
    # After epoch 8: 6 timed steps of 1 s, 8 are left. After epoch 9: 10 of 1 s and one pause of 5 s between them: 1.5 s
    # each, and 4 are left.
    assert text.getvalue().splitlines() == [
        "epoch  7/10   200.0 s      6 img/s  0:12 left",
        "epoch  8/10     9.0 s      6 img/s  0:08 left",
        "epoch  9/10     9.0 s      6 img/s  0:06 left",
    ]


def test_nothing_is_guessed_from_the_first_steps(clock):
    text = io.StringIO()
    display = ProgressDisplay(2, 3, 6, Console(file=text, width=200, force_terminal=False))
    display.on_train_begin()
    display.on_epoch_begin(0)
    for batch in range(3):
        clock.now += 10.0
        display.on_train_batch_end(batch, {})
    display.on_epoch_end(0, {})
    assert text.getvalue() == "epoch 1/2    30.0 s      1 img/s\n"  # 1 timed step in 10 s


def test_an_epoch_of_a_single_step_has_no_rate(clock):
    text = io.StringIO()
    display = ProgressDisplay(1, 1, 6, Console(file=text, width=200, force_terminal=False))
    display.on_train_begin()
    display.on_epoch_begin(0)
    display.on_train_batch_end(0, {"loss": 0.5})
    display.on_epoch_end(0, {"loss": 0.5})
    assert text.getvalue() == "epoch 1/1     0.0 s  loss 0.5000\n"


def test_a_phase_counts_its_own_epochs():
    text = io.StringIO()
    display = ProgressDisplay(10, 2, 6, Console(file=text, width=200, force_terminal=False), "tuning", epochs_before=20)
    display.on_train_begin()
    for epoch in (20, 29):  # as Keras numbers them
        display.on_epoch_begin(epoch)
        display.on_train_batch_end(0, {})
        display.on_epoch_end(epoch, {})
    first, last = text.getvalue().splitlines()
    assert first.startswith("tuning  1/10 ")
    assert last.startswith("tuning 10/10 ")


def test_a_clock_that_stands_still(clock):
    assert shown(force_terminal=True).count("0 img/s") > 0


def plain(text):
    """What a terminal shows, line by line, without the sequences that move the cursor or colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", text).replace("\r", "\n").splitlines()


def test_on_80_columns_no_line_is_longer_and_no_number_is_broken():
    lines = plain(shown(width=80, force_terminal=True))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    (last,) = re.findall(r"epoch 3/3 +\d+\.\d s[^━╸╺]*?val_mse \S+", text)
    assert len(re.findall(r"\b(?:val_)?(?:loss|mae|mse) \d\.\d{4}(?!\S)", last)) == 6


def test_the_bar_is_at_least_20_columns_wide_on_80():
    text = shown(width=80, force_terminal=True, color_system=None)
    assert max(len(bar) for bar in re.findall(r"[━╸╺]+", text)) >= 20


@pytest.mark.parametrize("width", [80, 200])
def test_it_says_that_it_compiles_until_the_first_step_is_done(width):
    text = shown(width=width, force_terminal=True)
    assert ("compiling" in text) == (BACKEND != "torch")
    assert "compiling" not in text[text.find("1/4") :]


def test_a_bar_on_a_terminal():
    text = shown(force_terminal=True)
    assert "\x1b[" in text
    assert re.search(r"epoch 3/3.*4/4.* img/s", text)


def test_nothing_when_quiet():
    assert shown(quiet=True) == ""


def test_in_a_notebook_a_bar_only_with_ipywidgets(monkeypatch):
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    for found, has_bar in ((None, False), (object(), True)):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        assert (ProgressDisplay(3, 4, 2, notebook).progress is not None) == has_bar
