"""The names of a model's weights in files. They do not change: files depend on them."""

from typing import Any

import keras


def weights_by_name(model: Any) -> dict[str, keras.Variable]:
    """The weights of a model by the names that presets and artifacts have for them.

    `backbone/patch_encoder/projection/kernel`, `backbone/transformer_block_0/attention/q_dense/kernel`,
    `logits/bias`: the path of a variable from its layer on, after `backbone/` if the layer lies in the backbone. What
    stands before the layer in the path are names of models, which vary. LoRA's matrices have no names.
    """
    backbone = getattr(model, "backbone", None)
    named = {}
    for prefix, owner in (("backbone/", backbone), ("", model)):
        for layer in getattr(owner, "layers", ()):
            if layer is backbone:
                continue
            for weight in layer.weights:
                within = weight.path.rpartition(f"{layer.name}/")[2]
                if not weight.name.startswith("lora_"):
                    named[f"{prefix}{layer.name}/{within}"] = weight
    return named
