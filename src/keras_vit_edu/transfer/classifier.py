"""A pretrained classifier of photographs: it maps raw images to class names."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_vit_edu._inference import turn
from keras_vit_edu._types import DType
from keras_vit_edu.datasets import ImageFolder
from keras_vit_edu.evaluation import Evaluation
from keras_vit_edu.training.run_folder import CLASSIFIER, RunFolder
from keras_vit_edu.transfer import artifact
from keras_vit_edu.transfer.fine_tuning import BALANCED, fine_tune
from keras_vit_edu.transfer.fine_tuning_options import FineTuning
from keras_vit_edu.transfer.freezing import count_trainable, table_of_parameters
from keras_vit_edu.transfer.predictor import Predictor
from keras_vit_edu.transfer.preprocessing import Preprocessing
from keras_vit_edu.transfer.pretrained import load_pretrained
from keras_vit_edu.transfer.split_images import parts_of_split, under_class_numbers


class TransferClassifier(Predictor):
    """A classifier of photographs: a model, the preprocessing of its images, and its class names.

    Images are raw, of any size, with values from 0 to 255: an array or tensor `(H, W, 3)`, a batch `(B, H, W, 3)`, an
    image of Pillow, or a list of these. Bools and values outside 0 to 255 are refused. An array of uint16 with a value
    above 255 is converted with a warning: grey values are stretched to the range that they use, colours keep their high
    byte.

    A file is a path, a binary stream (`io.BytesIO`, a file opened with `"rb"`) of at most 256 MiB, a folder (every file
    below it), a list of these, a Series of paths, or an `ImageFolder`.

    Several threads may share one classifier: only one of them computes at a time. While `fit` runs in one thread, no
    other thread may use the classifier.

    Args:
        model: maps preprocessed images `(B, height, width, 3)` to logits `(B, num_classes)`, without a softmax. A
            functional, Sequential or subclassed `keras.Model`. A model that is not built is called on zeros.
        preprocessing: maps raw images to the inputs of the model.
        class_names: a name for each logit.
        provenance: where the model came from, JSON.
        metrics: accuracy and other metrics, JSON.

    Attributes:
        model, preprocessing, class_names, provenance, metrics: as given, names as a tuple, the last two as dicts.

    Raises:
        ValueError: if the model is not a `keras.Model` with one input and one output, if it does not give one logit per
            class name, if it ends in an activation, or if it takes images of another size than the preprocessing gives.

    Examples:
        >>> import numpy as np
        >>> from keras_vit_edu.models import ViTBackbone, ViTClassifier
        >>> sizes = {"num_layers": 2, "num_heads": 3, "key_dim": 4, "mlp_dim": 24, "num_prefix_tokens": 1}
        >>> backbone = ViTBackbone((32, 32, 3), 8, 12, **sizes)
        >>> model = ViTClassifier(backbone, num_classes=2, head="token", head_units=())
        >>> classifier = TransferClassifier(model, Preprocessing(32, scale=1 / 255), ["cat", "dog"])
        >>> photographs = [np.zeros((40, 60, 3), "uint8"), np.full((80, 50, 3), 255, "uint8")]
        >>> predictions = classifier.predict(photographs)
        >>> round(sum(probability for _, probability in predictions[0]), 5)
        1.0
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     classifier.save(f"{folder}/pets.zip")
        ...     TransferClassifier.load(f"{folder}/pets.zip").predict(photographs) == predictions
        True
    """

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        class_names: Sequence[str] | None = None,
        image_size: int | Sequence[int] | None = None,
        load_weights: bool = True,
        fallback: str | None = None,
        preprocessing: Preprocessing | None = None,
        dtype: DType | None = None,
    ) -> "TransferClassifier":
        """Load a pretrained model of keras_hub or transformers, with its own classes or with a new head.

        A ViT or DeiT is opened (`open_vit`). A model of another family is used unchanged; a printed line says that it
        has no attention maps.

        A new head is a Dense layer of zeros on the pooled token, as the authors of the ViT fine-tune it: they remove
        the whole pretraining head, with its hidden layer. With zeros every class has the same probability at first, and
        the first gradients do not change the pretrained layers.

        Args:
            preset: a name from `list_presets`, a handle, or a folder, as in `load`.
            class_names: class names of a new head (not possible for VGG). None keeps the preset's head. Its class names
                come from the files of transformers; else they are ImageNet's if there are 1000 classes (a printed line
                says if this is a guess); else numbers.
            image_size: image size if it differs from the preset's, `(height, width)` or an int. The positions of a ViT
                or DeiT are interpolated.
            load_weights: False for random weights. keras_hub draws different ones on each backend.
            fallback: preset to use if `preset` is unavailable, such as `transfer.COURSES_FALLBACK`.
            preprocessing: replaces the preset's preprocessing; it must give the image size of the model.
            dtype: a dtype policy, such as `"mixed_bfloat16"`; None for the preset's.

        Returns:
            A `TransferClassifier`.

        Raises:
            ImportError: if keras_hub is not installed.
            ValueError: if the preset has no head and `class_names` is None; if the model cannot take a new head; if
                `class_names` has fewer than two names, or two equal names; as `load` and `open_vit`.
            PresetUnavailable: a `ValueError`, if the preset is not in the cache and cannot be downloaded.

        References:
            Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), arXiv 2010.11929, section 3.2.

        Examples:
            >>> classifier = TransferClassifier.from_preset("vit_base_patch16_224_imagenet")  # doctest: +SKIP
            >>> best = classifier.predict("photo.jpg")[0]  # five pairs of a name and its probability  # doctest: +SKIP
        """
        return cls(*load_pretrained(preset, class_names, image_size, load_weights, fallback, preprocessing, dtype))

    # Learning. --------------------------------------------------------------------------------------------------------

    def fit(
        self,
        train: str | Path | ImageFolder | tuple[Any, Any],
        validation: str | Path | ImageFolder | tuple[Any, Any] | None = None,
        options: FineTuning | None = None,
        run: str | Path | RunFolder | None = None,
        class_weights: Mapping[int, float] | Literal["balanced"] | None = BALANCED,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Fine-tune the model on photographs with `fine_tune`: by default a linear probe, then the whole model.

        `metrics` then holds the results on the validation images, and `provenance` the settings.

        Args:
            train: one of
                - a folder with one subfolder per class (a path or an `ImageFolder`), with names from `class_names`;
                - the path of a CSV file for `scan_csv`;
                - a pair of images and labels: raw images, uint8 (or uint16 with 16 bits), or files; and indices into
                  `class_names`, or names;
                - the path of a data set that is already split (see `datasets.find_split`): `train` is used for
                  training, `val` for validation unless `validation` is given. `test` is not used.
            validation: like `train`; None for a share of every class of `train`.
            options: training settings; None for the defaults.
            run: run folder, new or to resume. The classifier is saved in it as `classifier`. None keeps no files.
            class_weights: `"balanced"`, a weight for each class number, or None for the same weight for each image.
            **arguments: further arguments of `fine_tune`: `cache`, `console`, `callbacks`, `jit_compile`.

        Returns:
            The contents of `run.json`, with `history` and, if there is validation, `validation_accuracy`.

        Raises:
            ValueError: if the name of a subfolder is not a class name; if `run` is given and `save` would refuse the
                model; as `scan_folder` and `fine_tune`.
            RunFolderError: a `ValueError`, as `fine_tune`.
            TrainingFailed: if the loss is NaN or infinite. The model then has the last good weights.

        Warns:
            UserWarning: if files in a folder were skipped (for a path only); `run.json` lists them.

        Examples:
            >>> classifier = TransferClassifier.from_preset(
            ...     "deit_tiny_distilled_patch16_224_imagenet", class_names=["cat", "dog"])  # doctest: +SKIP
            >>> record = classifier.fit("photographs", run="runs/pets")  # doctest: +SKIP
            >>> classifier.predict("photo.jpg", top=1)  # doctest: +SKIP
        """
        options = options or FineTuning()
        if run is not None:
            artifact.describe(self.model)  # raises an error before hours of training if it cannot be saved
        parts = parts_of_split(train, validation, arguments.get("console"))
        to_train = under_class_numbers(parts[0], self.class_names)
        to_validate = under_class_numbers(parts[1], self.class_names)
        with contextlib.ExitStack() as stack:
            if isinstance(run, (str, Path)):
                run = stack.enter_context(RunFolder(run))

            def keep(found: Evaluation | None) -> dict[str, Any]:
                self.provenance["fine_tuning"] = options.to_json()
                self.metrics = {} if found is None else {"validation": _in_brief(found)}
                if run is not None:
                    self.save(run / CLASSIFIER)  # type: ignore[operator]
                return {}

            return fine_tune(
                self.model,
                self.preprocessing,
                to_train,
                to_validate,
                options,
                run,
                class_weights,
                class_names=self.class_names,
                afterwards=keep,
                **arguments,
            )

    # Keeping. ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Save the classifier in a folder or in one zip. `transfer.artifact` describes the format.

        It is written in one step: an existing artifact stays until the new one is complete. `trainable` flags are not
        saved. LoRA's updates are added to the weights.

        Args:
            path: a folder, or a file that ends in `.zip`. An existing artifact is replaced.

        Raises:
            ArtifactError: a `ValueError`, if `path` holds something other than an artifact, or if the model cannot be
                loaded without running code. Possible are an unquantized ViT or DeiT of this library, and an unquantized
                image classifier of keras_hub.
            OSError: if it cannot be written.
        """
        with turn(self.model):
            artifact.save(path, self.model, self.preprocessing, self.class_names, self.provenance, self.metrics)

    @classmethod
    def load(cls, path: str | Path) -> "TransferClassifier":
        """Load a saved classifier, on any backend. No code from the file is run, and nothing is unpacked to a disk.

        Args:
            path: a folder, or a zip.

        Returns:
            A `TransferClassifier`.

        Raises:
            ArtifactError: a `ValueError`, if there is no artifact, or if it is damaged, changed, from a newer version,
                or was not written by this library.
            ImportError: if the model is neither ViT nor DeiT, and keras_hub is not installed.
        """
        contents = artifact.load(path)
        try:
            return cls(**contents)
        except ValueError as error:
            raise artifact.ArtifactError(f"The artifact {path} cannot be loaded. {error}") from None

    # Looking. ---------------------------------------------------------------------------------------------------------

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the model."""
        return count_trainable(self.model).total

    @property
    def num_trainable(self) -> int:
        """Number of trainable parameters."""
        return count_trainable(self.model).trainable

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the parts of the model with their numbers of parameters and of trainable parameters.

        Args:
            print_fn: receives each line.
        """
        first = ", ".join(self.class_names[:5]) + (", ..." if self.num_classes > 5 else "")
        size = self.preprocessing.image_size
        print_fn(f"{self.model.name}, {type(self.model).__name__}, from {self.provenance.get('preset', 'elsewhere')}")
        print_fn(f"images: {f'{size[0]} x {size[1]}' if size else 'of any size'}; {self.num_classes} classes: {first}")
        for line in table_of_parameters(self.model):
            print_fn(line)

    def __repr__(self) -> str:
        return f"<TransferClassifier of {self.num_classes} classes, {self.model.name}>"


def _in_brief(found: Evaluation) -> dict[str, Any]:
    """An evaluation without the metrics per class and the confusion matrix."""
    return {name: value for name, value in found.to_json().items() if name not in ("per_class", "confusion")}
