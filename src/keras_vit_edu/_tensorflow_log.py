"""Remove TensorFlow's log lines from the error output while TensorFlow is imported.

`TF_CPP_MIN_LOG_LEVEL` is not enough: the C++ libraries print some lines before they read it. keras_hub imports
TensorFlow on every backend.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from keras_vit_edu import _backend

LOG_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} [\d:.]+ +\d+ \S+:\d+\]"  # E0000 00:00:1795905131.402500   17284 cuda_platform.cc:52] ...
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE] \S+:\d+\]"  # the same in earlier versions
    rb"|To enable the following instructions:"
)
ERROR_OUTPUT = 2


@contextlib.contextmanager
def kept_back() -> Iterator[None]:
    """Remove TensorFlow's log lines from the error output of the block. The other lines are printed at its end."""
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        shown = os.dup(ERROR_OUTPUT)
    except OSError:  # no room for it, or no error output
        yield
        return
    with held:
        _flush()
        os.dup2(held.fileno(), ERROR_OUTPUT)
        try:
            yield
        finally:
            _flush()
            os.dup2(shown, ERROR_OUTPUT)
            os.close(shown)
            held.seek(0)
            for line in held:
                if not LOG_LINE.match(line):
                    os.write(ERROR_OUTPUT, line)


def settle() -> None:
    """In our own command: if Keras runs on TensorFlow, import it without log lines; else keep Keras from it."""
    if _backend.backend_to_come() != "tensorflow":
        from keras_vit_edu import _keras_internals

        _keras_internals.leave_tensorflow_out()
        return
    with kept_back():
        import tensorflow as tf

        tf.config.list_physical_devices()


def _flush() -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no error output, or it is closed
        sys.stderr.flush()
