"""Interrupt a training run again and again, and see that it ends as if nothing had been.

    python -m tests.training.resume_harness --signals 25 --writes 10 --full-disks 5
    python -m tests.training.resume_harness --signals 0 --writes 0 --full-disks 0 --inside 200

A small model is trained once without interruption, in a process of its own, by the command `keras-vit-edu train`.
Then the same command is interrupted: by signals at random moments of its life (SIGINT, SIGTERM and SIGKILL in turn),
killed while it writes a checkpoint, and run with the disk full. The same command resumes it each time. After
SIGINT and SIGTERM the command must exit with 130 and say "interrupted". `--inside` sends signals to this process, while
`training.train` runs in it. Every weight of every model so made must equal the first one's, bit for bit. Prints a line
an interruption and a summary; exits with 1 if a signal or a run was lost.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import keras
import numpy as np
from rich.console import Console

from keras_vit_edu import datasets, training
from keras_vit_edu.models import ViTClassifier
from tests.support import vit_classifier

EPOCHS = 4


@dataclass
class Harness:
    """A small training, and the weights that it ends with."""

    folder: Path
    python: str = sys.executable
    epochs: int = EPOCHS
    reference: str = ""
    lifetime: float = 0.0  # from the start of the process to its end
    lost: list[str] = field(default_factory=list)
    interruptions: int = 0

    def prepare(self, reference: bool = True) -> None:
        """Make data, model and the run that nothing interrupts (which `interrupt_inside` does not need)."""
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # A shell starts what is to run in the background with SIGINT ignored, and children inherit that.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sample = datasets.load("mnist-sample")
        np.savez(
            self.folder / "data.npz",
            x_train=sample.x_train[:2000],
            y_train=sample.y_train[:2000],
            x_test=sample.x_test[:100],
            y_test=sample.y_test[:100],
        )
        # Dropout in every place, and a head wide enough that writing a checkpoint takes a moment.
        model = vit_classifier(
            projection_dim=16, num_layers=1, key_dim=8, mlp_dim=32, head_units=(2000, 300), name="small"
        )
        model.save_to_preset(self.folder / "preset")
        if not reference:
            return
        run = self.folder / "reference"
        started = time.monotonic()
        self.start(run).communicate()
        self.lifetime = time.monotonic() - started
        self.reference = self.weights(run)

    def start(self, run: Path) -> subprocess.Popen:
        """Start the training into `run`, or go on with it."""
        arguments = ["train", "--preset", self.folder / "preset", "--data", self.folder / "data.npz", "--run", run]
        options = ["--epochs", self.epochs, "--batch-size", 100, "--ema", 0.9, "--schedule", "cosine", "--quiet"]
        return subprocess.Popen(
            [self.python, "-m", "keras_vit_edu", *map(str, [*arguments, *options])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, run: Path) -> None:
        """Resume a run to its end."""
        if self.status(run) == "finished":  # before the signal came
            return
        process = self.start(run)
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{run} did not end: {errors}")

    def weights(self, run: Path) -> str:
        """A digest of every array in the model that a run left, dropout counters included."""
        digest = hashlib.sha256()

        def add(name, item):
            if isinstance(item, h5py.Dataset):
                digest.update(name.encode())
                digest.update(np.asarray(item).tobytes())

        with zipfile.ZipFile(run / "model.keras") as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content) as stored:
            stored.visititems(add)
        return digest.hexdigest()

    def check(self, what: str, run: Path, say=print) -> bool:
        """Go on with an interrupted run to its end; whether it came out as the one that nothing interrupted."""
        self.interruptions += 1
        try:
            self.finish(run)
            same = self.weights(run) == self.reference
        except RuntimeError as error:
            say(error)
            same = False
        if not same:
            self.lost.append(what)
        say(f"{self.interruptions:3}  {what:48} {'same weights' if same else 'LOST'}")
        shutil.rmtree(run, ignore_errors=True)
        return same

    # The three ways to interrupt. -------------------------------------------------------------------------------------

    def interrupt_in_a_row(self, count: int, seed: int, say=print) -> None:
        """Send signals at random moments of a process's whole life; the next process resumes what the last one left."""
        draw, sent, runs = random.Random(seed), 0, 0
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        while sent < count:
            run = self.folder / f"row-{runs}"
            while sent < count:
                what = self.send(self.start(run), numbers[sent % 3], draw.uniform(0, self.lifetime), run)
                if what is None:
                    break
                sent += 1
                say(f"{sent:3}  {what}")
            self.check(f"run {runs}, resumed to its end", run, say)
            self.interruptions -= 1
            runs += 1
        self.interruptions += sent

    def send(self, process: subprocess.Popen, number: signal.Signals, delay: float, run: Path) -> str | None:
        """Send a signal some seconds after our code began; what was done, or None if it had come to its end before."""
        while process.poll() is None and not catches(process.pid, signal.SIGTERM):
            time.sleep(0.01)  # Python starts, and nothing of ours can answer yet
        began = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate()
        status = self.status(run)
        if status == "finished":
            return None
        kept = ", ".join(name[6:11] for name in self.checkpoints(run)) or "none"
        what = f"{number.name} after {sent - began:.2f} s, ended in {time.monotonic() - sent:.2f} s, checkpoints {kept}"
        if number != signal.SIGKILL:
            self.check_answer(what, process.returncode, errors, status)
        return what

    def check_answer(self, what: str, code: int, errors: str, status: str | None) -> None:
        """How the command must end after SIGINT or SIGTERM."""
        # A signal during the imports comes before the run says that it is running again.
        is_right = code == 130 and errors.strip() == "keras-vit-edu: interrupted" and status != "failed"
        if not is_right:
            self.lost.append(what)
            print(f"WRONG ANSWER to {what}: exit status {code}, run.json {status!r}, {errors.strip()[-300:]!r}")

    def interrupt_inside(self, count: int, seed: int, say=print) -> None:
        """Send signals to this process while `training.train` runs in it; resume until all are sent, and to the end."""
        if keras.backend.backend() == "jax":  # each run has a model of its own, and so compiles the same step again
            import jax

            jax.config.update("jax_compilation_cache_dir", str(self.folder / "compiled"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        # Five steps an epoch: a run is as much setting up and writing as training, and the signals meet all of it.
        arrays = {name: array[:500] for name, array in np.load(self.folder / "data.npz").items()}
        images = {name: arrays[name] for name in ("x_train", "x_test")}
        labels = {name: arrays[name].astype("int32") for name in ("y_train", "y_test")}
        dataset = datasets.ImageDataset("mnist", "data.npz", **images, **labels, class_names=datasets.DIGITS)
        recipe = training.Recipe(epochs=self.epochs, batch_size=100, ema=0.9, schedule="cosine")
        late: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: late.append(number))
        draw = random.Random(seed)
        duration, sent, reference, runs = 0.0, 0, "", 0
        while sent < count or not reference:
            folder, interruptions = self.folder / f"inside-{runs}", 0
            while True:
                keras.utils.set_random_seed(0)
                model = ViTClassifier.from_preset(self.folder / "preset", load_weights=False)
                number = (signal.SIGINT, signal.SIGTERM)[sent % 2]
                timer = threading.Timer(draw.uniform(0, duration), os.kill, (os.getpid(), number))
                began = time.monotonic()
                try:
                    with training.RunFolder(folder) as run:
                        if reference and sent < count:  # the first run is the one that nothing interrupts
                            timer.start()
                        training.train(model, dataset, run, recipe, Console(quiet=True))
                    break
                except KeyboardInterrupt:
                    sent, interruptions = sent + 1, interruptions + 1
                    whole = all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in model.weights)
                    status = self.status(folder)
                    if status != "interrupted" or not whole:
                        self.lost.append(f"inside, signal {sent}")
                        say(f"LOST inside, signal {sent}: run.json {status!r}, weights {'whole' if whole else 'gone'}")
                finally:
                    timer.cancel()
                    if timer.is_alive():
                        timer.join()
            if not interruptions:  # again and again: the first run also imports and compiles
                duration = time.monotonic() - began
            weights = self.weights(folder)
            reference = reference or weights
            if weights != reference:
                self.lost.append(f"inside, run {runs}")
            runs += 1
            verdict = "same weights" if weights == reference else "LOST"
            say(f"inside, run {runs}: {interruptions} interruptions, {verdict}")
            shutil.rmtree(folder)
        self.interruptions += sent
        say(f"inside: {sent} signals in {runs - 1} runs; {len(late)} more came when a run had ended")

    def status(self, run: Path) -> str | None:
        """What `run.json` says; None if there is none."""
        file = run / "run.json"
        return json.loads(file.read_text())["status"] if file.is_file() else None

    def checkpoints(self, run: Path) -> list[str]:
        """The names of the checkpoints that are there, the oldest first."""
        return sorted(file.name for file in (run / "checkpoint").glob("*.safetensors"))

    def kill_in_a_write(self, seed: int) -> tuple[str, Path]:
        """SIGKILL while a checkpoint is being written."""
        for attempt in range(50):
            run = self.folder / f"write-{seed}-{attempt}"
            process = self.start(run)
            after = random.Random(seed).randrange(EPOCHS)  # let so many checkpoints pass
            pause = random.Random(seed).uniform(0, 0.01)
            while process.poll() is None:
                names = os.listdir(run / "checkpoint") if (run / "checkpoint").is_dir() else []
                if any(name.endswith(".new") for name in names) and (
                    max((int(name[6:11]) for name in names if name.endswith(".safetensors")), default=0) >= after
                ):
                    time.sleep(pause)
                    process.kill()
                    break
                time.sleep(0.0005)
            process.communicate()
            torn = list((run / "checkpoint").glob("*.new"))
            if torn:  # else the write was over before the signal came
                return f"SIGKILL in a write, {torn[0].stat().st_size:,} bytes of {torn[0].stem[:11]} written", run
            shutil.rmtree(run)
        raise RuntimeError("no signal came during a write in 50 attempts")

    def fill_the_disk(self, seed: int) -> tuple[str, Path]:
        """A disk with room for some checkpoints only; then there is room again."""
        disk = self.folder / f"disk-{seed}"
        disk.mkdir()
        size = random.Random(seed).choice([1, 4, 9, 14, 20])
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", disk], check=True)
        try:
            process = self.start(disk / "run")
            _, errors = process.communicate()
            assert process.returncode == 1, errors
            assert "No space left on device" in errors, errors
            assert "Traceback" not in errors, errors
            shutil.copytree(disk / "run", self.folder / f"after-disk-{seed}")
        finally:
            subprocess.run(["umount", disk], check=True)
        return f"disk of {size} MB full", self.folder / f"after-disk-{seed}"


def catches(process: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal; True where the system does not tell."""
    if not Path("/proc/self/status").exists():  # not Linux
        return True
    try:
        caught = Path(f"/proc/{process}/status").read_text().partition("SigCgt:")[2].split()[0]
    except (OSError, IndexError):  # it has ended
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def can_mount() -> bool:
    """Whether this process may make a small disk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=25)
    parser.add_argument("--writes", type=int, default=10)
    parser.add_argument("--full-disks", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--inside", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder), epochs=arguments.epochs)
        harness.prepare(reference=bool(arguments.signals or arguments.writes or arguments.full_disks))
        print(f"uninterrupted: {harness.lifetime:.1f} s, weights {harness.reference[:16]}")
        harness.interrupt_in_a_row(arguments.signals, arguments.seed)
        for seed in range(arguments.writes):
            harness.check(*harness.kill_in_a_write(arguments.seed + seed))
        for seed in range(arguments.full_disks):
            harness.check(*harness.fill_the_disk(arguments.seed + seed))
        if arguments.inside:
            harness.interrupt_inside(arguments.inside, arguments.seed)
        print(f"{harness.interruptions} interruptions on {keras.backend.backend()}, {len(harness.lost)} lost")
        return 1 if harness.lost else 0


if __name__ == "__main__":
    sys.exit(main())
