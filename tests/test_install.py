"""Which command a message names for an extra, in each kind of installation."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_vit_edu import _install

pytestmark = pytest.mark.any_backend

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "src" / "keras_vit_edu" / "_install.py"


@pytest.fixture
def install(tmp_path):
    """Lays the module out as pip does, and asks it, in a process of its own, for the command that brings `hub`."""
    site = tmp_path / "lib" / "python3" / "site-packages"
    (site / "keras_vit_edu").mkdir(parents=True)
    (site / "keras_vit_edu" / "__init__.py").touch()
    (site / "keras_vit_edu" / "_install.py").write_text(MODULE.read_text(encoding="utf-8"))
    metadata = site / "keras_vit_edu-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: keras-vit-edu\nVersion: 1.0\n")

    def command(direct_url=None, cwd=tmp_path):
        if direct_url is not None:
            text = direct_url if isinstance(direct_url, str) else json.dumps(direct_url)
            (metadata / "direct_url.json").write_text(text)
        program = f"import sys; sys.path[:] = [{str(site)!r}, *sys.path]; from keras_vit_edu import _install; "
        program += "print(_install.install_command('hub'))"
        done = subprocess.run(
            [sys.executable, "-S", "-c", program], cwd=cwd, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return command


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "a clone"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def test_from_an_index(install):
    assert install() == 'pip install "keras-vit-edu[hub]"'


def test_from_a_folder(install, clone, tmp_path):
    origin = {"url": clone.as_uri(), "dir_info": {}}  # as pip writes it, the blank as %20
    assert install(origin) == f'pip install "{clone}[hub]"'
    assert install(origin, cwd=clone) == 'pip install ".[hub]"'
    clone.rename(tmp_path / "elsewhere")
    assert install(origin) == 'pip install "keras-vit-edu[hub]"'


@pytest.mark.parametrize(
    "origin",
    [
        {"url": "https://example.org/keras_vit_edu.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
        {"url": "file:///tmp/keras_vit_edu-1.0-py3-none-any.whl", "archive_info": {}},
        {"url": 3, "dir_info": {}},
        [],
        {},
        "{",
    ],
)
def test_from_anything_else(install, origin):
    assert install(origin) == 'pip install "keras-vit-edu[hub]"'


def test_a_folder_with_a_name_that_means_something_to_a_shell(install, tmp_path):
    folder = tmp_path / "$HOME"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    assert install({"url": folder.as_uri(), "dir_info": {}}) == f"pip install '{folder}[hub]'"


def test_here_it_is_this_clone(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert _install.install_command("jax", "cli") == 'pip install ".[jax,cli]"'
    monkeypatch.chdir(tmp_path)
    assert _install.install_command("hub") == f'pip install "{ROOT}[hub]"'


def test_no_message_names_an_extra_by_itself():
    for file in (ROOT / "src").rglob("*.py"):
        if file != MODULE:
            assert not re.search(r"pip install .{0,3}keras-vit-edu", file.read_text(encoding="utf-8")), file
