"""Run the whole suite on the installed backends, or compare results from other machines."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_vit_edu import _backend
from keras_vit_edu._install import install_command
from keras_vit_edu._version import __version__
from keras_vit_edu.parity.checks import SUITES
from keras_vit_edu.parity.report import Report
from keras_vit_edu.parity.results import Results, ResultsError, is_ours, load_results
from keras_vit_edu.parity.rows import rows
from keras_vit_edu.parity.run import OnStep, run
from keras_vit_edu.parity.standard_checks import standard

LOCK = ".lock"


def run_suite(
    out: str | Path,
    backends: Sequence[str] | None = None,
    suite: str = "quick",
    checks: Sequence[str] | None = None,
    tf32: bool = False,
    on_step: OnStep = lambda backend, step: None,
) -> Report:
    """Run the checks on every backend, compare, and write `parity.json` and `parity.html`.

    Args:
        out: folder to write into; results of an earlier run in it are removed.
        backends: names; None for all that are installed. One that is unknown, not installed or broken is reported, and
            the others go on.
        suite: `"quick"`, or `"full"` with longer training.
        checks: names of those to run; None for all.
        tf32: let a GPU round float32 products to TF32.
        on_step: called as `on_step(backend, step)` with every step of every process.

    Returns:
        A `Report`, which is written into `out` too.

    Raises:
        ValueError: for an unknown suite or check.
        ResultsError: if another run is at work in `out`, or filelock is not installed.
        OSError: if `out` cannot be written.
    """
    if suite not in SUITES:
        raise ValueError(f"`suite` must be one of {', '.join(SUITES)}. Received: suite={suite!r}")
    every = standard()
    names = list(every if checks is None else dict.fromkeys(checks))
    for name in names:
        if name not in every:
            raise ValueError(f"There is no check {name!r}. There are {', '.join(every)}.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    chosen = list(dict.fromkeys(_backend.installed_backends() if backends is None else backends))
    with _alone_in(out):
        for backend in _backend.BACKENDS:
            if is_ours(out / backend):
                shutil.rmtree(out / backend)
        return _reported(out, suite, run(out, chosen, suite, names, tf32, on_step=on_step), names)


def compare_results(
    folders: Sequence[str | Path], out: str | Path, suite: str | None = None, checks: Sequence[str] | None = None
) -> Report:
    """Compare what runs elsewhere left in their folders, without running anything.

    Args:
        folders: each was the `out` of a run, on one backend or several. Where two have results of one backend, the
            report says which device each ran on; where TF32 was on in some only, which.
        out: folder to write `parity.json` and `parity.html` into.
        suite: refuse results of another; None to take that of the first.
        checks: names of those to compare; None for all that were run.

    Returns:
        A `Report`, which is written into `out` too.

    Raises:
        ResultsError: for a folder without results, with damaged ones, of another version, format or suite, without
            those of a check that is asked for or that another has, or with those of a backend on a device that another
            folder has too; if a run is at work in `out`, or filelock is not installed.
    """
    results: list[Results] = []
    for folder in folders:
        for found in load_results(Path(folder), __version__, suite):
            suite = suite or found.suite
            results.append(found)
    _label(results)
    ran = [found for found in results if found.broken is None]
    wanted = {name for found in ran for name in found.checks} if checks is None else set(checks)
    for found in ran:
        for name in sorted(wanted - found.checks.keys()):
            raise ResultsError(f"{found.folder} holds no results of a check {name!r}.")
    names = [name for name in standard() if name in wanted]
    Path(out).mkdir(parents=True, exist_ok=True)
    with _alone_in(Path(out)):
        return _reported(Path(out), str(suite), results, names)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Refuse to write where another run is writing."""
    try:
        import filelock
    except ImportError:
        raise ResultsError(f"Parity runs need filelock: {install_command('cli')}") from None
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):  # the operating system releases it if the process is killed
            yield
    except filelock.Timeout:
        raise ResultsError(
            f"Another parity run is at work in {folder}. Wait for its end, or name another folder."
        ) from None


def _label(results: Sequence[Results]) -> None:
    """Tell results apart: `torch (cpu)` and `torch (cuda)`, `jax` and `torch (TF32)`."""
    backends = [found.backend for found in results]
    same_tf32 = len({found.tf32 for found in results}) == 1
    labelled: dict[str, Results] = {}
    for found in results:
        device = str(found.environment.get("device", "unknown device")).partition(":")[0]
        notes = [device] if backends.count(found.backend) > 1 else []
        notes += ["TF32"] if found.tf32 and not same_tf32 else []
        found.label = f"{found.backend} ({', '.join(notes)})" if notes else found.backend
        if found.label in labelled:
            raise ResultsError(f"{found.folder} and {labelled[found.label].folder} are both of {found.label}.")
        labelled[found.label] = found


def _reported(out: Path, suite: str, results: Sequence[Results], names: Sequence[str]) -> Report:
    report = Report(suite, results, rows(results, [standard()[name] for name in names]))
    report.save(out)
    return report
