import pytest

plots = pytest.importorskip("keras_vit_edu.plots")


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure that was saved."""
    axes = []
    original = plots.Figure.savefig

    def keep(figure, *arguments, **keywords):
        axes.extend(figure.axes)
        return original(figure, *arguments, **keywords)

    monkeypatch.setattr(plots.Figure, "savefig", keep)
    return axes
