"""Write docs/presets.md: a table of the bundled presets, and a card for each that has weights.

    python tools/model_cards.py

Every figure on the page comes out of the presets' metadata.json; a test compares the page with what this makes.
"""

import json
from pathlib import Path
from typing import Any

from keras_vit_edu.models.preset import Preset

PAGE = Path(__file__).parents[1] / "docs" / "presets.md"

TOP = """# Presets

<!-- Made by tools/model_cards.py out of the presets' metadata.json: change those, not this page. -->

A preset is a model with a name. Presets with weights are trained already. Their weights are in the package, so no
network is needed, and they give the same logits on every backend, to 1e-5 of the largest. Build a preset without
weights by `ViTClassifier.from_preset(name, load_weights=False)`. `keras-vit-edu presets` prints this table. [Saving and
loading](saving.md#presets) describes the files of a preset, and how to save your own model as one.

"""

BELOW = """
Test accuracy is measured after the last epoch, never at the best, with its standard error sqrt(p (1 - p) / n) in
points. It is measured with the weights as they are stored. It holds for images like those of the dataset: 28x28, grey,
one object in the middle, light on black. Other images need their own training.
"""

CARD = """
## {name}

{description}

```python
from keras_vit_edu.models.preset import Preset

model = Preset.from_preset("{name}")
```

| | |
|---|---|
{rows}

```sh
{command}
```
"""


def page(presets: dict[str, dict[str, Any]]) -> str:
    """The page about these presets, given by their metadata."""
    lines = ["| name | description | parameters | test accuracy | weights |", "|---|---|---|---|---|"]
    cards = []
    for name, metadata in presets.items():
        link, accuracy, weights = name, "", "none"
        if metadata["weights_sha256"]:
            link, accuracy, weights = f"[{name}](#{name})", accuracy_of(metadata), stored(metadata)
            cards.append(card(name, metadata))
        lines.append(f"| {link} | {metadata['description']} | {metadata['parameters']:,} | {accuracy} | {weights} |")
    return TOP + "\n".join(lines) + "\n" + (BELOW if cards else "") + "".join(cards)


def card(name: str, metadata: dict[str, Any]) -> str:
    """What is known about one preset with weights."""
    dataset, versions = metadata["dataset"], metadata["versions"]
    images = dataset["images"]
    by_dtype = metadata["test_right_by_weights_dtype"]
    facts = {
        "Input": metadata["input"],
        "Classes": ", ".join(metadata["class_names"]),
        "Parameters": f"{metadata['parameters']:,}",
        "Weights": f"{stored(metadata)}, loaded as float32; SHA-256 `{metadata['weights_sha256']}`",
        "Trained on": f"{dataset['name']}: {images['train']:,} images, {images['validation']:,} more for validation; "
        f"SHA-256 of the arrays `{dataset['sha256']}`",
        "Training": f"recipe `{metadata['recipe']['name']}`, {metadata['epochs']} epochs, seed {metadata['seed']}, "
        f"{metadata['training_seconds']:,.0f} s; runs: {metadata['runs']}",
        "Recipe": "; ".join(f"{key} {json.dumps(value)}" for key, value in metadata["recipe"].items()),
        "With": f"{metadata['device']}; {', '.join(f'{key} {value}' for key, value in versions.items() if value)}",
        "Test accuracy": f"{accuracy_of(metadata)}: {metadata['test_right']:,} of {metadata['test_images']:,} right",
        "By dtype of the weights": ", ".join(f"{dtype}: {right:,} right" for dtype, right in by_dtype.items()),
        "Validation accuracy": f"{metadata['validation_accuracy']:.2%}",
    }
    if metadata["sample_right"] is not None:
        facts["On the bundled sample"] = f"{metadata['sample_right']:,} of {metadata['sample_images']:,} right"
    return CARD.format(
        name=name,
        description=metadata["description"],
        rows="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        command=metadata["command"],
    )


def accuracy_of(metadata: dict[str, Any]) -> str:
    return f"{metadata['test_accuracy']:.2%} ± {metadata['test_standard_error'] * 100:.2f}"


def stored(metadata: dict[str, Any]) -> str:
    return f"{metadata['weights_bytes'] / 1e6:.2f} MB of {metadata['weights_dtype']}"


if __name__ == "__main__":
    PAGE.write_text(page(Preset.presets), encoding="utf-8")
    print(PAGE)
