"""What tests of several files of transfer learning take."""

import socket

import pytest


@pytest.fixture
def keras_hub(monkeypatch, tmp_path):
    """keras_hub, and nobody on the network to ask."""

    def unreachable(*arguments, **more):
        raise OSError("Network is unreachable")

    module = pytest.importorskip("keras_hub", reason="keras_hub is not installed", exc_type=ImportError)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    return module
