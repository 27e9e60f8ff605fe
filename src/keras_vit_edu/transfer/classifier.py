"""A pretrained model that classifies photographs: images from 0 to 255 in, names of classes out."""

import contextlib
import dataclasses
import importlib.metadata
import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit_edu import _checks, training
from keras_vit_edu._files import printable
from keras_vit_edu._image_model import gives_probabilities, shapes_of
from keras_vit_edu._inference import turn
from keras_vit_edu._keras_internals import layers_within
from keras_vit_edu._weights import copy_variables
from keras_vit_edu.datasets import ImageFolder
from keras_vit_edu.datasets.image_csv import scan_images
from keras_vit_edu.training.run_folder import CLASSIFIER
from keras_vit_edu.transfer import (
    artifact,
    artifact_files,
    hub,
    hugging_face,
    photographs,
    transformers_folder,
    transformers_images,
)
from keras_vit_edu.transfer.fine_tuning import BALANCED, fine_tune
from keras_vit_edu.transfer.fine_tuning_options import FineTuning
from keras_vit_edu.transfer.freezing import last_activation
from keras_vit_edu.transfer.given_images import File
from keras_vit_edu.transfer.named_labels import are_names, indices_of_names
from keras_vit_edu.transfer.open_box import BACKBONES, open_vit
from keras_vit_edu.transfer.opened_vit import OpenedViTClassifier
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.training_images import of_split
from keras_vit_edu.transfer.transformers_images import read_preprocessing

BATCH_SIZE = 32
Progress = Callable[[int, int], object]


class Predictions(list[list[tuple[str, float]]]):
    """What `TransferClassifier.predict` gives: for each image the most probable classes, the first one first.

    Attributes:
        files: where the images came from, paths or streams; None if they were arrays.
        skipped: pairs of a file that could not be read and the reason; its entry in the list is empty.
    """

    def __init__(
        self,
        classes: Sequence[list[tuple[str, float]]],
        files: Sequence[File] | None = None,
        skipped: Sequence[tuple[File, str]] = (),
    ) -> None:
        super().__init__(classes)
        self.files = None if files is None else tuple(files)
        self.skipped = tuple(skipped)


class TransferClassifier:
    """A model, what its images go through first, and the names of its classes: all that classifying photographs takes.

    Images are raw, from 0 to 255, of any size: an array or tensor `(H, W, 3)`, a batch `(B, H, W, 3)`, an image of
    Pillow, or a list of these of any sizes. What is beyond 0 to 255 is refused; bool too. An array of uint16 with a
    value above 255 has 16 bits and is taken as such a file is, with a warning: a grey one is stretched to the range
    that it uses, of colours the high byte counts.

    Where files are said to do, it is a path, a binary stream (`io.BytesIO`, a file opened with `"rb"`) of at most
    256 MiB, a folder (every file below it), a list of these, a Series of paths, or an `ImageFolder`.

    Several threads of a service may share one classifier: the methods that compute take turns, in the whole process.
    While `fit` runs in one thread, no other may use the classifier.

    Args:
        model: preprocessed images `(B, height, width, 3)` to logits `(B, num_classes)`; no softmax. A functional,
            Sequential or subclassed `keras.Model`; one that is not built yet is called on an image of zeros. Attention
            can be looked at in an `OpenedViTClassifier`.
        preprocessing: from raw images to what the model takes.
        class_names: what the logits stand for.
        provenance: where the model came from, JSON.
        metrics: how well it does, JSON.

    Attributes:
        model, preprocessing, class_names, provenance, metrics: as given, names as a tuple, the last two as dicts.

    Raises:
        ValueError: if the model is no `keras.Model` of one input and one output, does not end in as many logits as
            there are names, ends in another activation, or takes images of another size than the preprocessing gives.

    Examples:
        >>> from keras_vit_edu.models import ViTBackbone
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> classifier = TransferClassifier(
        ...     OpenedViTClassifier(backbone, num_classes=2), Preprocessing(32, scale=1 / 255), ["cat", "dog"])
        >>> photographs = [np.zeros((40, 60, 3), "uint8"), np.full((80, 50, 3), 255, "uint8")]
        >>> [len(classes) for classes in classifier.predict(photographs)]
        [2, 2]
        >>> round(sum(probability for _, probability in classifier.predict(photographs)[0]), 5)
        1.0
    """

    def __init__(
        self,
        model: keras.Model,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        provenance: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(preprocessing, Preprocessing):
            raise ValueError(f"`preprocessing` must be a Preprocessing. Received: {type(preprocessing).__name__}")
        self.model: Any = model
        self.preprocessing = preprocessing
        self.class_names = _checked_names(class_names)
        self.provenance = dict(provenance or {})
        self.metrics = dict(metrics or {})
        self._check_model()

    def _check_model(self) -> None:
        gives = self.preprocessing.output_shape
        takes, outputs = shapes_of(self.model, gives)
        if outputs != (len(self.class_names),):
            raise ValueError(
                f"The model must give a logit for each of the {len(self.class_names)} class names. "
                f"Received: {self.model.name} with outputs of shape {(None, *outputs)}"
            )
        activation = last_activation(self.model)
        if gives_probabilities(self.model, gives):
            activation = keras.activations.softmax
        if activation is not keras.activations.linear:
            raise ValueError(
                "The model must give logits; the softmax is taken here, once. "
                f"Received: {self.model.name}, which ends in {getattr(activation, '__name__', activation)}"
            )
        if getattr(self.model, "preprocessor", None) is not None:
            raise ValueError(
                "keras_hub's `predict` would preprocess what has been preprocessed; set `model.preprocessor = None`. "
                f"Received: {self.model.name}, with a preprocessor of its own"
            )
        if len(takes) != 3 or any(None not in (a, b) and a != b for a, b in zip(takes, gives, strict=True)):
            raise ValueError(
                f"The preprocessing must give what the model takes. Received: images of shape {gives}, and "
                f"{self.model.name}, which takes {takes}"
            )

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        class_names: Sequence[str] | None = None,
        image_size: int | Sequence[int] | None = None,
        load_weights: bool = True,
        fallback: str | None = None,
        preprocessing: Preprocessing | None = None,
        dtype: Any = None,
    ) -> "TransferClassifier":
        """A pretrained model of keras_hub, with its own classes or with a new head for others.

        A ViT or DeiT is opened (`open_vit`); a model of another family is taken as it is, with a line that says that
        there are no attention maps.

        A new head is a Dense layer of zeros on the pooled token, as the ViT is fine-tuned by its authors: they remove
        the whole head of the pretraining, its layer with tanh (`pre_logits`) too. With zeros every class has the same
        probability at first, and the first gradients leave the pretrained layers alone.

        Args:
            preset: as `load` takes it: a name of `list_presets`, a handle, or a folder.
            class_names: of a new head (a VGG takes none). None for the head that the preset has, and for its names:
                those that a model of transformers tells; else ImageNet's if it has 1000 classes, with a line that says
                so where nothing else tells; else numbers.
            image_size: `(height, width)` or an int, if another one than the preset's. The positions of a ViT or DeiT
                are interpolated.
            load_weights: False for random weights, which keras_hub draws: other ones on each backend.
            fallback: a preset to take if this one cannot be had, such as `transfer.COURSES_FALLBACK`.
            preprocessing: instead of the preset's; it must come with the size that the model takes.
            dtype: a dtype policy, such as `"mixed_bfloat16"`; None for the preset's.

        Returns:
            A `TransferClassifier`.

        Raises:
            ImportError: if keras_hub is not installed.
            ValueError: if the preset has no head and `class_names` is None; for another family, if a new head cannot
                take the place of its own; as `load` and `open_vit` do; for class names that are not two strings at
                least, each another one.
            PresetUnavailable: a `ValueError`, if the preset is neither in the cache nor to be had from the network.

        References:
            Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), arXiv 2010.11929, section 3.2.

        Examples:
            >>> classifier = TransferClassifier.from_preset("vit_base_patch16_224_imagenet")  # doctest: +SKIP
            >>> best = classifier.predict("photo.jpg")[0]  # five pairs of a name and its probability  # doctest: +SKIP
        """
        if artifact_files.is_artifact(preset):
            raise ValueError(f"This was saved by a TransferClassifier, whose `load` opens it. Received: {preset}")
        names = None if class_names is None else _checked_names(class_names)
        if names is not None and (len(names) < 2 or len(set(names)) != len(names)):
            raise ValueError(f"There must be two class names or more, each another one. Received: {list(names)}")
        folder = _folder_of_vit(preset)
        if folder is not None:
            return cls(*_of_transformers(folder, preset, names, image_size, load_weights, preprocessing, dtype))
        arguments: dict[str, Any] = {"load_weights": load_weights}
        arguments |= {} if names is None else {"num_classes": len(names)}
        arguments |= {} if dtype is None else {"dtype": dtype}
        try:
            theirs, loaded = hub.load_and_name(preset, fallback=fallback, **arguments)
        except hub.NoHead as error:
            raise hub.NoHead(f"{error}; give `class_names` for a new head.") from None
        preprocessing = preprocessing or _preprocessing_of(theirs, image_size, loaded)
        if keras.saving.get_registered_name(type(theirs.backbone)) in BACKBONES:
            model = _opened(theirs, image_size, None if names is None else len(names))
        else:
            if names is not None:
                _check_new_head(theirs)
                if load_weights:
                    _copy_below_head(loaded, theirs, dtype)
            model = _wrapped(theirs, image_size, new_head=names is not None)
            print(f"keras_vit_edu: {loaded} is taken as it is; there are no attention maps.", file=sys.stderr)
        provenance = {
            "preset": loaded,
            "weights": "pretrained" if load_weights else "random",
            "head": "new" if names is not None else "of the preset",
            "keras_hub": importlib.metadata.version("keras-hub"),
        }
        return cls(model, preprocessing, names or _own_names(loaded, model.output_shape[-1]), provenance)

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.class_names)

    @property
    def is_opened(self) -> bool:
        """Whether the model is a ViT or DeiT made of this library's layers, so that its attention can be seen."""
        return isinstance(self.model, OpenedViTClassifier)

    # Classifying. -----------------------------------------------------------------------------------------------------

    def predict(
        self, images: Any, top: int = 5, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> Predictions:
        """The most probable classes of each image.

        Args:
            images: raw images, or files.
            top: how many classes to name.
            batch_size: how many images at a time.
            progress: called as `progress(done, total)` after every batch.

        Returns:
            A list with an entry for each image: `top` pairs of a class name and its probability, the most probable
            first; probabilities of all classes sum to 1. Where there are several files, the entry of one that cannot be
            read is empty, and `skipped` says why.

        Raises:
            ValueError: for arrays that are no images; if not one file can be read.
            ImportError: for files, without Pillow.

        Warns:
            UserWarning: if no value of the arrays is above 1, which looks like images from 0 to 1; if they have 16
                bits; if files were skipped.
        """
        top = min(_checks.positive_int("top", top), self.num_classes)
        files = photographs.image_files(images)
        if files is None:
            rows = self._rows(photographs.images_given(images), batch_size, progress)
            return Predictions([self._best(row, top) for row in rows])
        predictions = Predictions([[] for _ in files], files)
        skipped = []
        for place, row, reason in self._of_each(files, batch_size, progress):
            if row is None:
                skipped.append((files[place], reason))
            else:
                predictions[place] = self._best(row, top)
        predictions.skipped = tuple(skipped)
        if len(skipped) == len(files):
            raise ValueError(skipped[0][1] + (f" ({len(files)} files, none can be read)" if len(files) > 1 else ""))
        if skipped:
            warnings.warn(
                f"{len(skipped)} of {len(files)} files were skipped: {printable(skipped[0][1])}", stacklevel=2
            )
        return predictions

    def predict_each(
        self, files: Any, top: int = 5, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Any, list[tuple[str, float]], str]]:
        """As `predict`, file by file, as they are done: for thousands of them.

        Args:
            files: files.
            top: how many classes to name.
            batch_size: how many images at a time.

        Yields:
            The file (a path, or the stream), its most probable classes, and an empty string; for a file that cannot be
            read an empty list, and the reason.

        Raises:
            ValueError: at once, for what is no file.
        """
        top = min(_checks.positive_int("top", top), self.num_classes)
        paths = photographs.image_files(files)
        if paths is None:
            raise ValueError(f"There must be files. Received: {type(files).__name__}")
        _checks.positive_int("batch_size", batch_size)
        return (
            (paths[place], [] if row is None else self._best(row, top), reason)
            for place, row, reason in self._of_each(paths, batch_size, None)
        )

    def probabilities(self, images: Any, batch_size: int = BATCH_SIZE, progress: Progress | None = None) -> np.ndarray:
        """How probable each class is: the softmax of the logits.

        Args:
            images: raw images, or files.
            batch_size: how many images at a time.
            progress: called as `progress(done, total)` after every batch.

        Returns:
            float32 `(B, num_classes)`; each row sums to 1.

        Raises:
            ValueError: for what is no image, and for a file that cannot be read.
            ImportError: for files, without Pillow.

        Warns:
            UserWarning: if no value of the arrays is above 1, which looks like images from 0 to 1; if they have 16
                bits.
        """
        return self._rows(photographs.images_given(images), batch_size, progress)

    def _rows(self, several: Sequence[Any], batch_size: int, progress: Progress | None) -> np.ndarray:
        """Probabilities `(n, num_classes)` of what `images_given` gives."""
        rows = np.zeros((len(several), self.num_classes), "float32")
        for place, row, reason in self._of_each(several, batch_size, progress):
            if row is None:
                raise ValueError(reason)
            rows[place] = row
        return rows

    def _of_each(
        self, images: Sequence[Any], batch_size: int, progress: Progress | None
    ) -> Iterator[tuple[int, np.ndarray | None, str]]:
        """Place and probabilities of each image, in their order; for a file that cannot be read None and the reason."""
        batch_size = min(_checks.positive_int("batch_size", batch_size), len(images))
        done = 0
        for places, converted, failed in photographs.in_batches(images, self.preprocessing, batch_size):
            rows: Any = self._of_batch(converted, batch_size) if places else []
            found: list[tuple[int, np.ndarray | None, str]] = [
                *((place, row, "") for place, row in zip(places, rows, strict=True)),
                *((place, None, reason) for place, reason in failed),
            ]
            yield from sorted(found, key=lambda entry: entry[0])
            done += len(found)
            if progress is not None:
                progress(done, len(images))

    def _of_batch(self, converted: list[np.ndarray], batch_size: int) -> np.ndarray:
        """Probabilities `(b, num_classes)`, of a batch that is filled up: a model is compiled for one batch size."""
        filled = converted + [converted[-1]] * (batch_size - len(converted))
        return training.probabilities(self.model, photographs.stacked(filled))[: len(converted)].astype("float32")

    def _best(self, row: np.ndarray, top: int) -> list[tuple[str, float]]:
        return [(self.class_names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:top]]

    def attention_scores(self, images: Any) -> list[np.ndarray]:
        """Who attends to whom, in every block, the first one first.

        Args:
            images: raw images, or files.

        Returns:
            For each block float32 `(B, num_heads, T, T)`, entry `[b, h, query, key]`, each row sums to 1; the first of
            the T tokens are the class token and, in DeiT, the distillation token.

        Raises:
            ValueError: if the model is no opened ViT or DeiT, and as `probabilities` does.
        """
        if not self.is_opened:
            raise ValueError(
                "Attention scores are there for ViT and DeiT, which are opened; this model is taken as it is. "
                f"Received: {self.model.name}, a {type(self.model).__name__}"
            )
        preprocessed = self._converted(photographs.images_given(images))
        with turn(self.model):
            scores = self.model.attention_scores(preprocessed)
        return [keras.ops.convert_to_numpy(keras.ops.cast(of_a_block, "float32")) for of_a_block in scores]

    def preprocess(self, images: Any) -> np.ndarray:
        """Raw images, or files, as the model takes them: float32 `(B, height, width, 3)`.

        (Or `(B, 3, height, width)`, if `preprocessing.data_format` is `"channels_first"`.)

        Raises:
            ValueError: for what is no image, for a file that cannot be read, and for images of several sizes if the
                preprocessing leaves them as they are.
        """
        return self._converted(photographs.images_given(images))

    def _converted(self, several: Sequence[Any]) -> np.ndarray:
        """What `images_given` gives, as the model takes it."""
        ((_, converted, failed),) = photographs.in_batches(several, self.preprocessing, len(several))
        if failed:
            raise ValueError(failed[0][1])
        return photographs.stacked(converted)

    def evaluate(
        self, data: Any, labels: Any = None, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> training.Evaluation:
        """Classify images whose classes are known.

        Args:
            data: an `ImageFolder`, or the path of a folder with one subfolder per class, or of a CSV as `scan_csv`
                reads it, whose names are class names of the classifier (some may be missing); or raw images or files,
                with `labels`.
            labels: int `(n,)`, indices into the classifier's `class_names`; or these names.
            batch_size: how many images at a time.
            progress: called as `progress(done, total)` after every batch.

        Returns:
            An `Evaluation` under the classifier's class names.

        Raises:
            ValueError: if a subfolder has the name of no class, or of two; for labels that are no such indices, or of
                another number than there are images; as `scan_folder` and `probabilities` do.

        Warns:
            UserWarning: if files were skipped in a folder that is given as a path.
        """
        if labels is None:
            if isinstance(data, (str, os.PathLike)):
                data = _scanned(data)
            if not isinstance(data, ImageFolder):
                raise ValueError(f"Without `labels` there must be a folder of images. Received: {type(data).__name__}")
            indices = self._indices_of(data.class_names)[data.labels]
        else:
            indices = self._checked_labels(labels)
        several = photographs.images_given(data)
        if len(several) != len(indices):
            raise ValueError(
                f"There must be a label for each image. Received: {len(indices)} for {len(several)} images"
            )
        found = self._rows(several, batch_size, progress)
        return training.Evaluation(indices, found.astype("float64"), self.class_names)

    def _indices_of(self, names: Sequence[str]) -> np.ndarray:
        """Which of the classes each of a folder's classes is."""
        unknown = [name for name in names if self.class_names.count(name) != 1]
        if unknown:
            first = printable(", ".join(self.class_names[:5])) + (", ..." if self.num_classes > 5 else "")
            twice = " (that name has two classes)" if unknown[0] in self.class_names else ""
            raise ValueError(
                f"The subfolders must have the names of classes; the classifier has {self.num_classes}: {first}. "
                f"Received: {len(names)} subfolders, of which {len(unknown)} have not, the first of them "
                f"{unknown[0]!r}{twice}"
            )
        return np.array([self.class_names.index(name) for name in names], "int64")

    def _checked_labels(self, labels: Any) -> np.ndarray:
        """Labels as indices into the class names, which they may be too."""
        if are_names(labels):
            return indices_of_names(labels, self.class_names)
        return _checks.labels("Labels", labels, self.num_classes).astype("int64")

    # Learning. --------------------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        validation: Any = None,
        options: FineTuning | None = None,
        run: str | Path | training.RunFolder | None = None,
        class_weights: Mapping[int, float] | str | None = BALANCED,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Fine-tune the model on photographs: `fine_tune`, by default a linear probe and then all of it.

        `metrics` then says how well it does on the validation's images, and `provenance` how it was tuned.

        Args:
            train: a folder with one subfolder per class, as a path or an `ImageFolder`, whose names are class names of
                the classifier; or the path of a CSV as `scan_csv` reads it; or a pair of images and labels: raw images,
                uint8 (or uint16 of 16 bits), or files, and indices into `class_names`, or these names. Of the path of
                a data set that is split (see `datasets.find_split`) `train` is trained on and `val` validates, unless
                `validation` is given; `test` is left alone.
            validation: likewise; None for a share of every class of `train`.
            options: how to train; None for the defaults.
            run: a run folder to write into, or to go on from; the classifier is saved in it as `classifier`. None to
                keep nothing.
            class_weights: `"balanced"`, a weight for each class number, or None for the same weight for each image.
            **arguments: of `fine_tune`: `cache`, `console`, `callbacks`, `jit_compile`.

        Returns:
            What `run.json` says: among the rest `history` and, with validation, `validation_accuracy`.

        Raises:
            ValueError: if a subfolder has the name of no class; if the model is of a kind that `save` refuses, and
                there is a `run`; as `scan_folder` and `fine_tune` do.
            RunFolderError: a `ValueError`, as `fine_tune` raises it.
            TrainingFailed: if the loss is no longer a finite number; the model has the last good weights then.

        Warns:
            UserWarning: if files were skipped in a folder that is given as a path; `run.json` names them all.

        Examples:
            >>> classifier = TransferClassifier.from_preset(
            ...     "deit_tiny_distilled_patch16_224_imagenet", class_names=["cat", "dog"])  # doctest: +SKIP
            >>> record = classifier.fit("photographs", run="runs/pets")  # doctest: +SKIP
            >>> classifier.predict("photo.jpg", top=1)  # doctest: +SKIP
        """
        options = options or FineTuning()
        if run is not None:
            artifact.describe(self.model)  # complains, before hours of training, if it cannot be saved
        train, validation = of_split(train, validation, arguments.get("console"))
        train, validation = self._to_learn_from(train), self._to_learn_from(validation)
        with contextlib.ExitStack() as stack:
            if isinstance(run, (str, Path)):
                run = stack.enter_context(training.RunFolder(run))

            def keep(evaluation: training.Evaluation | None) -> dict[str, Any]:
                self.provenance["fine_tuning"] = options.to_json()
                self.metrics = {} if evaluation is None else {"validation": _in_brief(evaluation)}
                if run is not None:
                    self.save(run / CLASSIFIER)  # type: ignore[operator]
                return {}

            return fine_tune(
                self.model,
                self.preprocessing,
                train,
                validation,
                options,
                run,
                class_weights,
                class_names=self.class_names,
                afterwards=keep,
                **arguments,
            )

    def _to_learn_from(self, data: Any) -> Any:
        """Images under the classifier's own class numbers."""
        if isinstance(data, (str, os.PathLike)):
            data = _scanned(data)
        if isinstance(data, (tuple, list)) and len(data) == 2 and are_names(data[1]):
            return data[0], self._checked_labels(data[1])
        if not isinstance(data, ImageFolder):
            return data
        labels = self._indices_of(data.class_names)[data.labels].astype("int32")
        return dataclasses.replace(data, class_names=self.class_names, labels=labels)

    # Keeping. ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Keep the classifier, in a folder or in one zip; what for and what is in it says `transfer.artifact`.

        It is written in one step: until it is whole, an artifact that was there stays. Which layers train is not kept;
        LoRA's updates are added to the weights.

        Args:
            path: a folder, or a file that ends in `.zip`. An artifact that is there is replaced.

        Raises:
            ArtifactError: a `ValueError`, if something else is at `path`, or if the model is none that can be loaded
                again without running code: an opened ViT or DeiT, or an image classifier of keras_hub, not quantized.
            OSError: if it cannot be written.

        Examples:
            >>> import tempfile
            >>> from keras_vit_edu.models import ViTBackbone
            >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
            >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
            >>> classifier = TransferClassifier(
            ...     OpenedViTClassifier(backbone, num_classes=2), Preprocessing(32, scale=1 / 255), ["cat", "dog"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     classifier.save(f"{folder}/pets.zip")
            ...     TransferClassifier.load(f"{folder}/pets.zip").class_names
            ('cat', 'dog')
        """
        with turn(self.model):
            artifact.save(path, self.model, self.preprocessing, self.class_names, self.provenance, self.metrics)

    @classmethod
    def load(cls, path: str | Path) -> "TransferClassifier":
        """The classifier that `save` kept, on whatever backend. No code of the file is run, nothing is unpacked.

        Args:
            path: a folder, or a zip.

        Raises:
            ArtifactError: a `ValueError`, if there is no artifact, or it was changed, is damaged, of a newer version,
                or not what this library writes.
            ImportError: if it holds a model that is neither ViT nor DeiT, and keras_hub is not installed.
        """
        contents = artifact.load(path)
        try:
            return cls(**contents)
        except ValueError as error:
            raise artifact.ArtifactError(f"The artifact {path} cannot be loaded. {error}") from None

    # Looking. ---------------------------------------------------------------------------------------------------------

    @property
    def num_parameters(self) -> int:
        """How many numbers the model has learned, or could."""
        return sum(int(np.prod(weight.shape)) for weight in self.model.weights)

    @property
    def num_trainable(self) -> int:
        """How many of them train."""
        return sum(int(np.prod(weight.shape)) for weight in self.model.trainable_weights)

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Say what this is: the model part by part, with how many of its parameters train.

        Args:
            print_fn: called with each line.
        """
        first = ", ".join(self.class_names[:5]) + (", ..." if self.num_classes > 5 else "")
        size = self.preprocessing.image_size
        print_fn(f"{self.model.name}, {type(self.model).__name__}, from {self.provenance.get('preset', 'elsewhere')}")
        print_fn(f"images: {f'{size[0]} x {size[1]}' if size else 'of any size'}; {self.num_classes} classes: {first}")
        layers = [layer for layer in self.model.layers if layer.weights]
        if self.is_opened:
            layers = [*self.model.backbone.layers, *(layer for layer in layers if layer is not self.model.backbone)]
        rows = [(layer.name, *_counts(layer)) for layer in layers if layer.weights]
        width = max(len("total"), *(len(name) for name, _, _ in rows))
        print_fn(f"{'':{width}}  {'parameters':>13}  {'trainable':>13}")
        for name, total, trainable in [*rows, ("total", self.num_parameters, self.num_trainable)]:
            print_fn(f"{name:{width}}  {total:13,}  {trainable:13,}")

    def __repr__(self) -> str:
        return f"<TransferClassifier of {self.num_classes} classes, {self.model.name}>"


def _scanned(path: str | os.PathLike) -> ImageFolder:
    """The images of a folder or CSV, with a warning if something in it was left out."""
    found = scan_images(path)
    if found.skipped:
        file, reason = (printable(text) for text in found.skipped[0])
        warnings.warn(
            f"{len(found.skipped)} files were skipped in {printable(str(found.path))}: {file}: {reason}", stacklevel=4
        )
    return found


def _in_brief(evaluation: training.Evaluation) -> dict[str, Any]:
    """An evaluation without what grows with the number of classes, or with its square."""
    return {name: value for name, value in evaluation.to_json().items() if name not in ("per_class", "confusion")}


def _counts(layer: Any) -> tuple[int, int]:
    total, trainable = (
        sum(int(np.prod(weight.shape)) for weight in weights) for weights in (layer.weights, layer.trainable_weights)
    )
    return total, trainable


def _checked_names(names: Any) -> tuple[str, ...]:
    several = names if isinstance(names, str) else list(names)
    checked = _checks.class_names(several, distinct=False)
    return tuple(unicodedata.normalize("NFC", name) for name in checked)  # as `ImageFolder` has them


def _folder_of_vit(preset: str | Path) -> Path | None:
    """The folder of a ViT or DeiT of transformers, if that is what a preset is."""
    try:
        folder = hugging_face.folder_of_transformers(preset)
    except hub.PresetUnavailable:  # which is said later, or answered with the fallback
        return None
    kind = None if folder is None else transformers_folder.model_type_of(folder)
    return folder if kind in transformers_folder.PREFIX_TOKENS else None


def _of_transformers(
    folder: Path,
    preset: str | Path,
    names: tuple[str, ...] | None,
    image_size: int | Sequence[int] | None,
    load_weights: bool,
    preprocessing: Preprocessing | None,
    dtype: Any,
) -> tuple[Any, Preprocessing, tuple[str, ...], dict[str, Any]]:
    """The arguments of a `TransferClassifier` out of a folder of a ViT or DeiT of transformers."""
    if preprocessing is None:
        preprocessing = read_preprocessing(folder, str(transformers_folder.model_type_of(folder)))
        preprocessing = preprocessing if image_size is None else preprocessing.at_image_size(image_size)
    try:
        model, own_names = transformers_folder.load_model(
            folder, None if names is None else len(names), image_size, load_weights, dtype
        )
    except transformers_folder.WithoutHead as error:
        raise hub.NoHead(f"{error}; give `class_names` for a new head.") from None
    provenance = {
        "preset": str(preset),
        "weights": "pretrained" if load_weights else "random",
        "head": "new" if names is not None else "of the preset",
        "written_by": "transformers",
    }
    return model, preprocessing, names or own_names or _own_names(str(preset), model.num_classes), provenance


def _preprocessing_of(theirs: Any, image_size: int | Sequence[int] | None, preset: str) -> Preprocessing:
    """What keras_hub's classifier does to its images, with another size if asked for."""
    converter = getattr(theirs.preprocessor, "image_converter", None)
    if converter is None and (Path(preset) / transformers_images.FILE).is_file():
        preprocessing = read_preprocessing(Path(preset), "vit")
        return preprocessing if image_size is None else preprocessing.at_image_size(image_size)
    if converter is None:
        raise ValueError(
            "The preset does not say what its images go through first; give `preprocessing`. "
            f"Received: {theirs.name}, without an image converter"
        )
    preprocessing = Preprocessing.from_converter(converter)
    if image_size is not None:
        return preprocessing.at_image_size(image_size)
    if preprocessing.image_size is None:
        height, width = _height_and_width(theirs)
        if height and width:
            return dataclasses.replace(preprocessing, image_size=(height, width))
    return preprocessing


def _height_and_width(model: Any) -> tuple[int | None, int | None]:
    shape = model.input_shape[1:]
    is_first = getattr(model.backbone, "data_format", "channels_last") == "channels_first"
    return (shape[1], shape[2]) if is_first else (shape[0], shape[1])


def _opened(theirs: Any, image_size: int | Sequence[int] | None, num_new_classes: int | None) -> OpenedViTClassifier:
    """keras_hub's classifier out of our layers, without an activation; with a new head of zeros if asked for."""
    opened = open_vit(theirs, image_size)
    if num_new_classes is None:
        _check_activation(theirs, theirs.activation)
        if keras.activations.get(theirs.activation) is keras.activations.linear:
            return opened
    has_token = opened.backbone.num_prefix_tokens > 0
    classifier = OpenedViTClassifier(
        opened.backbone,
        num_new_classes or opened.num_classes,
        pooling=opened.pooling if has_token or num_new_classes is None else "gap",
        pre_logits_dim=None if num_new_classes else opened.pre_logits_dim,
        head_dropout=opened.head_dropout,
        head_dtype=opened.head_dtype,
    )
    if num_new_classes:
        _set_to_zero(classifier.get_layer("logits"))
        return classifier
    for name in ("pre_logits", "logits"):
        if name == "logits" or opened.pre_logits_dim is not None:
            copy_variables(opened.get_layer(name).weights, classifier.get_layer(name).weights)
    return classifier


def _check_new_head(theirs: Any) -> None:
    """Complain early about a model that no new head is trained for."""
    if not isinstance(theirs.layers[-1], keras.layers.Dense):
        raise ValueError(
            f"A new head takes the place of the Dense layer that a classifier ends in. Received: {theirs.name}, a "
            f"{type(theirs).__name__}, which ends in a {type(theirs.layers[-1]).__name__} and has its own classes alone"
        )


def _copy_below_head(loaded: str, theirs: Any, dtype: Any) -> None:
    """Give a model with a new head the preset's weights between the backbone and the head too, where there are any.

    keras_hub loads none but the backbone's as soon as another number of classes is asked for.
    """
    fresh = _weights_below_head(theirs)
    if not fresh:
        return
    try:
        own = hub.load(loaded, **({} if dtype is None else {"dtype": dtype}))
    except hub.NoHead as error:
        raise hub.NoHead(
            f"{type(theirs).__name__} has layers between the backbone and the head, whose weights are missing. {error}"
        ) from None
    copy_variables(_weights_below_head(own), fresh)


def _weights_below_head(theirs: Any) -> list[Any]:
    """The weights that are neither of the backbone nor of the last layer."""
    others = {id(weight) for weight in (*theirs.backbone.weights, *theirs.layers[-1].weights)}
    return [weight for weight in theirs.weights if id(weight) not in others]


def _wrapped(theirs: Any, image_size: int | Sequence[int] | None, new_head: bool) -> Any:
    """keras_hub's classifier itself, without an activation; with a head of zeros if asked for."""
    if image_size is not None and None not in _height_and_width(theirs):
        wanted = _checks.pair_of_ints("image_size", image_size)
        if wanted != _height_and_width(theirs):
            raise ValueError(
                "Another image size is for ViT and DeiT, and for CNNs, which take any. "
                f"Received: image_size={image_size} for {theirs.name}, which takes {_height_and_width(theirs)}"
            )
    of_backbone = {id(layer) for layer in layers_within(theirs.backbone)}
    head = [
        layer
        for layer in layers_within(theirs)
        if isinstance(layer, keras.layers.Dense) and id(layer) not in of_backbone
    ][-1:]
    if not head or head[0].units != theirs.output_shape[-1]:
        raise ValueError(f"A classifier must end in a Dense layer. Received: {theirs.name}, a {type(theirs).__name__}")
    if new_head:
        _set_to_zero(head[0])
    else:
        _check_activation(theirs, head[0].activation)
    head[0].activation = keras.activations.linear
    theirs.activation = None
    theirs.preprocessor = None  # keras_hub's `predict` and `fit` would preprocess what has been preprocessed
    # Its layers are still known to the model and were never built: on JAX Keras would run the whole model once more,
    # uncompiled, before every `predict_on_batch`.
    for layer in layers_within(theirs):
        layer.built = True
    return theirs


def _check_activation(theirs: Any, activation: Any) -> None:
    activation = keras.activations.get(activation)
    if activation not in (keras.activations.linear, keras.activations.softmax):
        raise ValueError(
            "The head of a preset must give logits, or their softmax. "
            f"Received: {theirs.name}, whose head ends in {getattr(activation, '__name__', activation)}"
        )


def _set_to_zero(layer: Any) -> None:
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])


def _own_names(preset: str, num_classes: int) -> tuple[str, ...]:
    """The names of the classes of a preset's own head; numbers where nobody tells them."""
    told = hub.class_names_in_folder(preset)
    if told is not None and len(told) == num_classes:
        return told
    if num_classes == 1000:
        if not hub.is_of_imagenet(preset):
            print(f"keras_vit_edu: {preset} does not name its 1000 classes; these are ImageNet's.", file=sys.stderr)
        return hub.imagenet_names()
    return tuple(map(str, range(num_classes)))
