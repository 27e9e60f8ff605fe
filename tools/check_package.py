"""Build the package, look into the wheel, install it into a clean environment and use it there.

    python tools/check_package.py --constraints constraints.txt --saved FOLDER

FOLDER is where `tests/pairs/test_write.py` wrote on some backend: a model saved there must load from the installed
wheel. The environment gets the JAX backend. Needs the packages `build` and `twine`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "keras_vit_edu"
LARGEST = 30_000_000  # bytes

USE = """
import json, sys
import numpy as np
import keras_vit_edu, keras
from keras_vit_edu import datasets
from keras_vit_edu.models.preset import Preset
from keras_vit_edu.models.reference_logits import recorded_logits, reference_logits

assert "site-packages" in keras_vit_edu.__file__, keras_vit_edu.__file__
written = np.load(sys.argv[1] + "/numbers.npz")
model = keras.saving.load_model(sys.argv[1] + "/uncompiled.keras")
logits = keras.ops.convert_to_numpy(model(written["images"]))
difference = np.abs(logits - written["logits"]).max() / np.abs(written["logits"]).max()
assert difference < 1e-5, difference
assert len(datasets.load("mnist-sample").x_train) == 10_000
trained = [name for name, metadata in Preset.presets.items() if metadata["weights_sha256"]]
for name, metadata in Preset.presets.items():
    model = Preset.from_preset(name, load_weights=name in trained)
    if name in trained:
        recorded = recorded_logits(metadata)
        off = np.abs(reference_logits(model) - recorded).max() / np.abs(recorded).max()
        assert off < 1e-5, (name, off)
print(f"a saved model loads (logits to {difference:.0e}), the sample is there, "
      f"{len(Preset.presets)} presets, with weights: {', '.join(trained) or 'none'}")
"""


def expected_files() -> set[str]:
    """What the wheel must hold of the package: the files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "--", str(PACKAGE)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {str(Path(line).relative_to("src")) for line in listed.stdout.splitlines() if (ROOT / line).is_file()}


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    if inside != expected_files():
        sys.exit(f"The wheel lacks {expected_files() - inside} and holds, too many, {inside - expected_files()}.")
    licenses = {name.split("/licenses/")[1] for name in names if "/licenses/" in name}
    if licenses != {"LICENSE", "src/keras_vit_edu/datasets/LICENSE-MNIST.txt"}:
        sys.exit(f"The wheel's licenses are {licenses}.")
    if wheel.stat().st_size > LARGEST:
        sys.exit(f"The wheel has {wheel.stat().st_size:,} bytes, more than {LARGEST:,}.")
    print(f"{wheel.name}: {len(inside)} files, {wheel.stat().st_size:,} bytes, nothing missing, nothing stray")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraints", type=Path, required=True)
    parser.add_argument("--saved", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # The wheel is made from the sdist, so that one is whole too.
        subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
        (sdist,), (wheel,) = Path(folder).glob("*.tar.gz"), Path(folder).glob("*.whl")
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", sdist, wheel], check=True)
        check_wheel(wheel)

        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERAS", "VIRTUAL"))
        }
        clean["HOME"] = folder
        bin_folder = Path(folder) / "clean" / "bin"

        def run(*command: object) -> None:
            subprocess.run([str(part) for part in command], cwd=folder, env=clean, check=True)

        run(sys.executable, "-m", "venv", "clean")
        run(bin_folder / "pip", "install", "--quiet", "-c", arguments.constraints.resolve(), f"{wheel}[jax,cli]")
        run(bin_folder / "pip", "check")
        run(bin_folder / "keras-vit-edu", "--version")
        run(bin_folder / "keras-vit-edu", "doctor", "--backend", "jax")
        run(bin_folder / "keras-vit-edu", "presets", "--backend", "jax")
        run(bin_folder / "python", "-W", "error::SyntaxWarning", "-c", USE, arguments.saved.resolve())
    print("the wheel works")


if __name__ == "__main__":
    main()
