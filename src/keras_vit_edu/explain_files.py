"""Explain what a model sees in files: the maps, the pictures of them, and the arrays, in a folder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from keras_vit_edu import datasets
from keras_vit_edu._files import check_writable, printable
from keras_vit_edu.classify_files import check_reads_digits
from keras_vit_edu.digits.digit_photo import checked_picture, find_in, in_mnists_form
from keras_vit_edu.digits.looks_like_digit import check_found
from keras_vit_edu.evaluation import softmax
from keras_vit_edu.explain import attention_distance, look_inside, position_similarity
from keras_vit_edu.explain._head import read_by_head
from keras_vit_edu.explain.explanation import METHODS, knows_classes
from keras_vit_edu.load_classifier import LoadedClassifier
from keras_vit_edu.transfer.photographs import as_seen, image_files

DEFAULT_METHODS = ("rollout", "relevance", "occlusion")
MOST = 50  # files at once
SHEET = 12  # images in the picture of all maps
ARRAYS = "explanation.npz"


@dataclass(frozen=True, eq=False)
class Explained:
    """What `explain_files` wrote.

    Attributes:
        files: the files that were explained.
        skipped: file and reason, for each one that was not.
        answers: for each file the name of the predicted class and its probability.
        written: what lies in the folder.
    """

    files: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]
    answers: tuple[tuple[str, float], ...]
    written: tuple[Path, ...]


def explain_files(
    loaded: LoadedClassifier,
    files: Sequence[str | Path],
    out: str | Path,
    methods: Sequence[str] = DEFAULT_METHODS,
    target: int | str | None = None,
    against: int | str | None = None,
    check: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> Explained:
    """Explain pictures of digits, or photographs, and write everything into a folder.

    The folder gets `maps.png` (the maps of all methods, side by side, of the first images), for each image
    `heads-NUMBER.png` (where each head of each block looks), `positions.png`, `distances.png`, and `explanation.npz`
    with the maps, attention scores, logits and images.

    Args:
        loaded: result of `load_classifier`.
        files: pictures; a folder stands for every picture in it.
        out: folder for the results; created if it is not there.
        methods: some of the methods of `explain.explain`.
        target: name or index of the class that is explained. Defaults to the predicted class of each image.
        against: name or index of a class to compare with.
        check: refuse pictures that do not look like a digit.
        progress: called as `progress(done, total)` after each method.

    Returns:
        What was written, and about which files.

    Raises:
        ValueError: if no file can be read, there are too many, a method or class does not exist, the model has no
            attention that can be shown, or the folder cannot be written.
        ImportError: without Pillow or matplotlib.
    """
    from keras_vit_edu import plots

    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"The results need a folder. Received: {out}, a file")
    check_writable(out / ARRAYS)
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"There is no method {method!r}. There are {', '.join(METHODS)}.")
    paths = [Path(os.fspath(path)) for file in files for path in cast(Any, image_files(file)) or ()]
    if len(paths) > MOST:
        raise ValueError(f"At most {MOST} files are explained at once. Received: {len(paths)}")
    names, shown, images, skipped = _read(loaded, paths, check)
    classes = {"target": _index(loaded, "target", target), "against": _index(loaded, "against", against)}

    inside = look_inside(loaded.model, images)
    maps = {}
    for done, method in enumerate(methods, start=1):
        of_class = classes if knows_classes(method) else {}
        maps[method] = METHODS[method](model=loaded.model, images=images, inside=inside, **of_class)
        if progress is not None:
            progress(done, len(methods))
    answers = _answers(loaded, inside.output)

    written = [out / ARRAYS]
    arrays: dict[str, Any] = {
        "images": images,
        "logits": inside.output,
        "files": np.array([str(name) for name in names]),
        **{f"map_{method}": found for method, found in maps.items()},
        **{f"scores_{block}": scores.astype("float16") for block, scores in enumerate(inside.scores)},
    }
    np.savez(written[0], **arrays)
    titles = [f"{name}: {share:.0%}" for name, share in answers]
    if maps:
        first = {method: found[:SHEET] for method, found in maps.items()}
        written.append(out / "maps.png")
        plots.maps_side_by_side(shown[:SHEET], first, titles[:SHEET], written[-1])
    read = read_by_head(loaded.model, inside)
    for number, image in enumerate(shown):
        seen = [np.einsum("t,hts->hs", read[number], scores[number]) for scores in inside.scores]
        if len({of_block.shape for of_block in seen}) == 1:
            of_patches = np.stack(seen)[..., inside.grid.num_prefix_tokens :]
            written.append(out / f"heads-{number:02d}.png")
            plots.heads_and_blocks(image, inside.grid.as_map(of_patches), written[-1])
    written += _of_the_model(loaded, inside, shown[0], out)
    return Explained(tuple(names), tuple(skipped), tuple(answers), tuple(written))


def _of_the_model(loaded: LoadedClassifier, inside: Any, image: np.ndarray, out: Path) -> list[Path]:
    """Draw the attention distances and the similarities of positions."""
    from keras_vit_edu import plots

    written, grid = [out / "distances.png"], inside.grid
    height, width = image.shape[:2]
    patch = (height // grid.rows, width // grid.columns)
    plots.attention_distances(attention_distance(inside.scores, grid, patch), written[0], max(height, width))
    if grid.num_patches <= 400:
        written.append(out / "positions.png")
        plots.position_similarities(position_similarity(loaded.model), (grid.rows, grid.columns), written[-1])
    return written


def _read(
    loaded: LoadedClassifier, paths: Sequence[Path], check: bool
) -> tuple[list[Path], list[np.ndarray], np.ndarray, list[tuple[Path, str]]]:
    """Names, pictures to draw on, images as the model takes them, and the files that cannot be read."""
    names, shown, images, skipped = [], [], [], []
    if loaded.photographs is None:
        check_reads_digits("the model", loaded)
    for path in paths:
        try:
            picture = datasets.read_image(path)
            if loaded.photographs is None:
                found = find_in(checked_picture(picture))
                if check:
                    check_found(found)
                images.append(in_mnists_form(found))
                shown.append(images[-1])
            else:
                seen = as_seen(picture, loaded.photographs.preprocessing)
                images.append(loaded.photographs.preprocessing.convert(picture))
                shown.append(seen)
            names.append(path)
        except ValueError as error:
            skipped.append((path, str(error)))
    if not images:
        raise ValueError(skipped[0][1] if skipped else "There is no file to explain.")
    return names, shown, np.stack(images).astype("float32"), skipped


def _answers(loaded: LoadedClassifier, logits: np.ndarray) -> list[tuple[str, float]]:
    names = _class_names(loaded, logits.shape[1])
    return [(printable(names[row.argmax()]), float(row.max())) for row in softmax(logits)]


def _class_names(loaded: LoadedClassifier, count: int) -> Sequence[str]:
    return loaded.class_names or [str(label) for label in range(count)]


def _index(loaded: LoadedClassifier, name: str, given: int | str | None) -> int | None:
    """The index of a class that is given by name or index."""
    if given is None or isinstance(given, int):
        return given
    names = list(_class_names(loaded, loaded.model.output_shape[-1]))
    if given in names:
        return names.index(given)
    if given.isdecimal():
        return int(given)
    some = ", ".join(map(printable, names[:10])) + (", ..." if len(names) > 10 else "")
    raise ValueError(f"`{name}` must be a class: {some}. Received: {name}={given!r}")
