import io
import re

import keras
import numpy as np
from rich.console import Console

from keras_vit_edu.training.progress import ProgressDisplay


def shown(**console):
    text = io.StringIO()
    display = ProgressDisplay(
        epochs=3, steps=4, batch_size=2, console=Console(file=text, width=200, highlight=False, **console)
    )
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(np.zeros((8, 2)), np.zeros(8), batch_size=2, epochs=3, verbose=0, callbacks=[display])
    return text.getvalue()


def test_a_plain_line_an_epoch_where_there_is_no_terminal():
    lines = shown(force_terminal=False).splitlines()
    assert len(lines) == 3
    for epoch, line in enumerate(lines, start=1):
        assert re.match(rf"epoch {epoch}/3 +\d+\.\d s +\d+ img/s  loss \d+\.\d{{4}}", line)
    assert re.search(r"\d:\d\d left$", lines[0])
    assert not lines[2].endswith("left")


def test_rate_and_time_left_of_a_run_that_is_gone_on_with(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("keras_vit_edu.training.progress.time.monotonic", lambda: next(clock))
    text = io.StringIO()
    display = ProgressDisplay(10, 2, 6, Console(file=text, width=200, force_terminal=False))
    display.on_train_begin()  # at 0
    display.on_epoch_begin(7)  # at 1
    display.on_train_batch_end(0, {})  # at 2: 6 images in a second
    display.on_train_batch_end(1, {})  # at 3: 12 images in 2 seconds
    display.on_epoch_end(7, {})  # at 4, and the time left is asked for at 5: 2 steps in 5 s, 4 of 6 steps left
    assert text.getvalue() == "epoch  8/10     3.0 s      6 img/s    0:10 left\n"


def test_a_clock_that_stands_still(monkeypatch):
    monkeypatch.setattr("keras_vit_edu.training.progress.time.monotonic", lambda: 5.0)
    assert shown(force_terminal=True).count("0 img/s") > 0


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
