"""Fine-tune the small classifier in a process of its own: `python -m tests.transfer.fine_tuning_process RUN OPTIONS`.

Prints one JSON object: the history, and a digest of all weights.
"""

import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

from keras_vit_edu.training import RunFolder
from keras_vit_edu.transfer import FineTuning, fine_tune
from tests.transfer.small import PREPROCESSING, classifier, coloured

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    keras.utils.set_random_seed(0)
    model = classifier()
    with RunFolder(folder) as run:
        record = fine_tune(
            model,
            PREPROCESSING,
            coloured(60),
            options=FineTuning.from_json(json.loads(sys.argv[2])),
            run=run,
            cache=folder.parent / "features",
            console=Console(quiet=True),
        )
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(w).tobytes() for w in model.get_weights())).hexdigest()
    history = {name: values for name, values in record["history"].items() if name != "seconds"}
    print(json.dumps({"history": history, "weights": digest}))
