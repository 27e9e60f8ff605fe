"""Run checks on several backends, each in a process of its own, and keep what they measured in a folder."""

import contextlib
import json
import math
import os
import queue
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from keras_vit_edu import _backend, _files, _interruption
from keras_vit_edu._install import install_command
from keras_vit_edu.parity.checks import Measurement

FORMAT_VERSION = 1
STEP = "keras_vit_edu.parity"  # marks the lines of a worker: a backend may print its own
RESULTS = "results.json"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

OnStep = Callable[[str, Mapping[str, Any]], None]


@dataclass
class Results:
    """What one backend measured.

    Attributes:
        backend: its name.
        folder: with an npz file a check, and `results.json`.
        suite: `"quick"`, `"full"`, or `"own"` for a user's own code.
        version: of keras_vit_edu.
        tf32: whether TF32 was left on.
        environment: versions and device.
        checks: by name: `error`, a line or None; `excused`, whether the error is that it cannot run here; `seconds`.
        broken: why the backend did not come to its end; None if it did.
        label: what the report calls it; the backend's name unless another is given.
    """

    backend: str
    folder: Path
    suite: str
    version: str
    tf32: bool = False
    environment: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        self.label = self.label or self.backend

    def measurements(self, check: str) -> list[Measurement]:
        """What the check measured, in its order.

        Raises:
            ResultsError: if its file is damaged, or gone, as those of a user's own code are after the comparison.
        """
        file = self.folder / f"{check}.npz"
        if not self.folder.is_dir():
            raise ResultsError(f"The arrays are not kept: {self.folder} was there for the comparison only.")
        try:
            return read(file)
        except Exception as error:  # a damaged archive raises anything
            raise ResultsError(f"{file} is damaged: {error!r}") from None

    def save(self) -> None:
        """Write `results.json`."""
        content = {name: value for name, value in vars(self).items() if name not in ("folder", "label")}
        text = json.dumps({"format_version": FORMAT_VERSION, **content}, indent=2)
        (self.folder / RESULTS).write_text(text + "\n", encoding="utf-8")


class ResultsError(ValueError):
    """A folder of results that cannot be used; its text is for the person who named it."""


def load_results(folder: Path, version: str, suite: str | None) -> list[Results]:
    """The results of every backend that a run left in `folder`.

    Args:
        folder: what a run was given as `--out`.
        version: of keras_vit_edu; results of another are refused.
        suite: results of another are refused; None for any.

    Raises:
        ResultsError: if there are none, or they are damaged, or of another version, format or suite.
    """
    files = sorted(folder.glob(f"*/{RESULTS}"))
    if not files:
        raise ResultsError(f"{folder} holds no results of a parity run.")
    return [_load(file, version, suite) for file in files]


def _load(file: Path, version: str, suite: str | None) -> Results:
    try:
        content = _files.read_json(file)
        format_version = content.pop("format_version")
        if format_version != FORMAT_VERSION:
            raise ResultsError(f"{file} has format {format_version}; this version reads format {FORMAT_VERSION}.")
        found = Results(folder=file.parent, **content)
        _check_types(found)
    except ResultsError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ResultsError(f"{file} is damaged: {error!r}") from None
    if found.version != version:
        raise ResultsError(f"{file} was made by keras_vit_edu {found.version}; this is {version}.")
    if suite is not None and found.suite != suite:
        raise ResultsError(f"{file} is of the suite {found.suite!r}, not {suite!r}.")
    return found


def _check_types(found: Results) -> None:
    for name, kind in (("backend", str), ("suite", str), ("version", str), ("tf32", bool), ("environment", dict),
                       ("checks", dict), ("broken", str | None)):  # fmt: skip
        if not isinstance(getattr(found, name), kind):
            raise TypeError(f"{name} is {getattr(found, name)!r}")
    versions, device = found.environment.get("versions", {}), found.environment.get("device", "")
    if not isinstance(versions, dict) or not isinstance(device, str):
        raise TypeError(f"environment is {found.environment!r}")
    for name, outcome in found.checks.items():
        if not isinstance(outcome["error"], str | None) or not isinstance(outcome["excused"], bool):
            raise TypeError(f"the outcome of {name} is {outcome!r}")


# Arrays. --------------------------------------------------------------------------------------------------------------


def save_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz file; floats and ints of 8 bits and less that NumPy lacks as float32."""
    is_small = {name: array.dtype.kind == "V" and array.dtype != BFLOAT16 for name, array in arrays.items()}
    known = {name: array.astype("float32") if is_small[name] else array for name, array in arrays.items()}
    np.savez(file, **dict[str, Any](known))


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote. (NumPy writes the bits of a bfloat16, but not what they are.)

    Raises:
        ValueError: if an array says that it is larger than the file has room for.
    """
    with _files.open_regular(file) as stream, _files.open_zip(stream) as archive:
        for entry in archive.infolist():
            _check_array(archive, entry)
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict[str, np.ndarray](stored)
    return {name: array.view(BFLOAT16) if array.dtype == "V2" else array for name, array in arrays.items()}


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Complain about an array that is compressed, or whose header tells of another size than its entry has."""
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(entry) as stream:
        shape, _, dtype = formats[np.lib.format.read_magic(stream)](stream)
        size = stream.tell() + math.prod(shape) * dtype.itemsize
    if entry.compress_type != zipfile.ZIP_STORED or dtype.hasobject or size != entry.file_size:
        raise ValueError(f"{entry.filename[:80]!r} has {entry.file_size:,} bytes, and tells of {size:,}")


def write(file: Path, measurements: Iterable[Measurement], rows: Container[str]) -> None:
    """Put measurements into an npz file.

    Raises:
        ValueError: for what would not be compared: one in none of `rows`, or a second one of a name in its row.
    """
    arrays = {}
    for measurement in measurements:
        if measurement.row not in rows:
            raise ValueError(f"There is no tolerance for the row {measurement.row!r} of {measurement.name!r}.")
        if f"actual/{measurement.row}/{measurement.name}" in arrays:
            raise ValueError(f"Two arrays of {measurement.row!r} are called {measurement.name!r}.")
        arrays[f"actual/{measurement.row}/{measurement.name}"] = measurement.actual
        if measurement.expected is not None:
            arrays[f"expected/{measurement.row}/{measurement.name}"] = measurement.expected
    save_arrays(file, arrays)


def read(file: Path) -> list[Measurement]:
    """What `write` put there."""
    arrays = load_arrays(file)
    actual, expected = (
        {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        for prefix in ("actual/", "expected/")
    )
    found = []
    for key, array in actual.items():
        row, _, name = key.partition("/")
        found.append(Measurement(row, name, array, expected.get(key)))
    return found


# Processes. -----------------------------------------------------------------------------------------------------------


def run(
    folder: Path,
    backends: Sequence[str],
    suite: str,
    checks: Sequence[str],
    tf32: bool = False,
    own_code: Mapping[str, Any] | None = None,
    on_step: OnStep = lambda backend, step: None,
) -> list[Results]:
    """Run checks on every one of `backends`, all at the same time.

    Args:
        folder: each backend writes into a subfolder of its name; what an earlier run left there is removed.
        backends: one that is unknown, not installed or broken gets results that say so, and does not stop the others.
        suite: `"quick"` or `"full"`.
        checks: their names.
        tf32: leave TF32 on.
        own_code: for a user's function; see `own_code.py`.
        on_step: called as `on_step(backend, step)` with every step of every worker.

    Returns:
        The results, in the order of `backends`; those of known backends are in `folder` as well.
    """
    from keras_vit_edu import __version__

    results = {backend: Results(backend, folder / backend, suite, __version__, tf32) for backend in backends}
    for found in results.values():
        found.broken = _unavailable(found.backend)
    known = [found for found in results.values() if found.backend in _backend.BACKENDS]
    startable = [found for found in known if found.broken is None]
    job = {"folder": str(folder), "suite": suite, "checks": list(checks), "tf32": tf32, "own_code": own_code}
    for found in known:
        if found.folder.exists() and not is_ours(found.folder):
            raise ResultsError(f"{found.folder} exists and holds something other than results; name another folder.")
    for found in known:
        shutil.rmtree(found.folder, ignore_errors=True)
        found.folder.mkdir(parents=True)
        (found.folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    threads = max((os.cpu_count() or 1) // max(len(startable), 1), 1)
    with contextlib.ExitStack() as processes:
        workers = {found.backend: processes.enter_context(_Worker(found, threads)) for found in startable}
        _attend(workers, on_step)
    for found in startable:
        for name in checks if found.broken is None else ():
            found.checks.setdefault(name, {"error": "it did not run", "excused": False, "seconds": 0.0})
    for found in known:
        found.save()
    return list(results.values())


def is_ours(folder: Path) -> bool:
    """Whether a folder holds one backend's results, or what a run that was killed left of them."""
    try:
        job = _files.read_json(folder / "job.json")
    except ValueError:
        return False
    return isinstance(job, dict) and {"folder", "suite", "checks", "own_code"} <= job.keys()


def _unavailable(backend: str) -> str | None:
    """Why a backend cannot be started; None if it can be tried."""
    if backend not in _backend.BACKENDS:
        return f"there is no backend {backend!r}; there are {', '.join(_backend.BACKENDS)}"
    if backend not in _backend.installed_backends():
        return f"it is not installed: {install_command(backend)}"
    return None


class _Worker:
    """A process of one backend; it is ended when the `with` block is left, whatever for."""

    def __init__(self, results: Results, threads: int) -> None:
        self.results = results
        self.threads = threads
        self.waits = False
        self.prepared: set[str] = set()
        self.log = results.folder / "log.txt"

    def __enter__(self) -> "_Worker":
        self._log: IO = open(self.log, "wb")
        environment = {
            **os.environ,
            "KERAS_BACKEND": self.results.backend,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),  # it imports what we can import
            "PYTHONUNBUFFERED": "1",
        }
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or the first one takes all of a GPU's memory
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):  # more threads than cores wait for each other
            environment.setdefault(name, str(self.threads))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "keras_vit_edu.parity.worker", str(self.results.folder / "job.json")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.kill()  # before its output is closed, for which one must wait while it is being read
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        self._log.close()

    def steps(self) -> Iterator[dict[str, Any]]:
        """What the process says, until it ends."""
        for line in self.process.stdout or ():
            at = line.find(f'{{"{STEP}": ')  # something else may stand before it on the line
            if at >= 0:
                with contextlib.suppress(ValueError):
                    yield json.loads(line[at:])[STEP]

    def take(self, step: Mapping[str, Any]) -> None:
        """Write down a step."""
        if "environment" in step:
            self.results.environment = step["environment"]
        elif "waiting" in step:
            self.waits = True
        elif step["step"] == "prepared":
            self.prepared.add(step["check"])
        elif step["step"] in ("measured", "failed"):
            self.results.checks[step["check"]] = {name: step[name] for name in ("error", "excused", "seconds")}

    def ended(self) -> None:
        """The process is over: was that the end of its work?"""
        status = self.process.wait()
        if status != 0 or not self.waits:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self.results.broken = f"its process ended with status {status}: {lines[-1] if lines else 'no message'}"

    def go_on(self, prepared: Mapping[str, Sequence[str]]) -> None:
        """Let the second phase begin: who wrote the files of which check."""
        with contextlib.suppress(OSError):  # it may have died meanwhile
            self.process.stdin.write(json.dumps(prepared) + "\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]


def _attend(workers: Mapping[str, _Worker], on_step: OnStep) -> None:
    """Follow the workers to their ends; let all into the second phase when the last one is through the first."""
    happenings: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()

    def listen(backend: str, worker: _Worker) -> None:
        with contextlib.suppress(ValueError):  # closed, after an interruption
            for step in worker.steps():
                happenings.put((backend, step))
        happenings.put((backend, None))

    for backend, worker in workers.items():
        threading.Thread(target=listen, args=(backend, worker), daemon=True).start()
    in_first_phase, running = set(workers), set(workers)
    while running:
        _interruption.check()
        try:
            backend, step = happenings.get(timeout=0.5)
        except queue.Empty:
            continue
        worker = workers[backend]
        if step is None:
            running.discard(backend)
            worker.ended()
        else:
            worker.take(step)
            on_step(backend, step)
        if backend in in_first_phase and (step is None or worker.waits):
            in_first_phase.discard(backend)
            if not in_first_phase:
                checks = sorted({name for worker in workers.values() for name in worker.prepared})
                prepared = {name: [backend for backend, worker in workers.items() if name in worker.prepared]
                            for name in checks}  # fmt: skip
                for backend in running:
                    workers[backend].go_on(prepared)
