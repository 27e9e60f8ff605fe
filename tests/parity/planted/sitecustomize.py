"""Python runs this at its start wherever this folder is on its path: it plants a fault in one backend's worker.

`PLANTED_FAULT` says which, as `backend:fault`; every other process is left alone.
"""

import os
import sys

backend, _, fault = os.environ.get("PLANTED_FAULT", "").partition(":")
if "keras_vit_edu.parity.worker" in sys.orig_argv and os.environ.get("KERAS_BACKEND") == backend:
    import faults

    faults.FAULTS[fault]()
