"""Whatever is changed in a file, it loads or is refused in one line, and takes little memory."""

import sys

import pytest

from tests.untrusted.mutations import attempt, make_sources, peak

pytestmark = [
    pytest.mark.any_backend,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells of it"),
]
EACH = 8  # changed files of a kind; the harness beside this file tries thousands


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize("kind", ["artifact", "artifact.zip", "preset", "cnn", "run", "recipe"])
def test_a_changed_file_loads_or_is_refused(kind, sources, tmp_path):
    before = peak()
    outcomes = [attempt(kind, sources[kind], tmp_path / sources[kind].name, seed) for seed in range(EACH)]
    wrong = [f"{outcome.what}: {outcome.error!r}" for outcome in outcomes if not outcome.is_right]
    assert not wrong
    assert any(outcome.error is not None for outcome in outcomes)
    assert peak() - before < 500
