"""A pretrained model that classifies photographs: images from 0 to 255 in, names of classes out."""

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
    """All that classifying photographs takes: a model, the preprocessing of its images, and the names of its classes.

    Images are raw, of any size, with values from 0 to 255: an array or tensor `(H, W, 3)`, a batch `(B, H, W, 3)`, an
    image of Pillow, or a list of these. Values beyond 0 to 255, and bool, are refused. An array of uint16 with a value
    above 255 has 16 bits, and draws a warning: grey is stretched to the range that it uses, of colours the high byte
    counts.

    A file is a path, a binary stream (`io.BytesIO`, a file opened with `"rb"`) of at most 256 MiB, a folder (every file
    below it), a list of these, a Series of paths, or an `ImageFolder`.

    Several threads may share one classifier: methods that compute take turns, in the whole process. While `fit` runs in
    one thread, no other may use the classifier.

    Args:
        model: preprocessed images `(B, height, width, 3)` to logits `(B, num_classes)`; no softmax. A functional,
            Sequential or subclassed `keras.Model`. One that is not built yet is called on an image of zeros.
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
        """A pretrained model of keras_hub, with its own classes or with a new head for others.

        A ViT or DeiT is opened (`open_vit`). A model of another family is taken as it is, and a line says that there
        are no attention maps.

        A new head is a Dense layer of zeros on the pooled token, as the authors of the ViT fine-tune it: they remove
        the whole head of the pretraining, its hidden layer too. With zeros every class has the same
        probability at first, and the first gradients leave the pretrained layers alone.

        Args:
            preset: as `load` takes it: a name of `list_presets`, a handle, or a folder.
            class_names: of a new head (a VGG takes none). None for the preset's own head. Its names are those that a
                model of transformers tells; else ImageNet's if it has 1000 classes, with a line that says so where
                nothing else tells; else numbers.
            image_size: another size than the preset's, `(height, width)` or an int. The positions of a ViT or DeiT are
                interpolated.
            load_weights: False for random weights, which keras_hub draws: other ones on each backend.
            fallback: a preset to take if this one cannot be had, such as `transfer.COURSES_FALLBACK`.
            preprocessing: instead of the preset's; it must give the size that the model takes.
            dtype: a dtype policy, such as `"mixed_bfloat16"`; None for the preset's.

        Returns:
            A `TransferClassifier`.

        Raises:
            ImportError: if keras_hub is not installed.
            ValueError: if the preset has no head and `class_names` is None; if a model of another family cannot take a
                new head; as `load` and `open_vit`; for fewer than two class names, or two that are equal.
            PresetUnavailable: a `ValueError`, if the preset is neither in the cache nor to be had from the network.

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
            run: a run folder, new or to be resumed; the classifier is saved in it as `classifier`. None to keep
                nothing.
            class_weights: `"balanced"`, a weight for each class number, or None for the same weight for each image.
            **arguments: of `fine_tune`: `cache`, `console`, `callbacks`, `jit_compile`.

        Returns:
            What `run.json` says: among the rest `history` and, with validation, `validation_accuracy`.

        Raises:
            ValueError: if a subfolder has the name of no class; if there is a `run`, and `save` would refuse the model;
                as `scan_folder` and `fine_tune`.
            RunFolderError: a `ValueError`, as `fine_tune`.
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
        parts = parts_of_split(train, validation, arguments.get("console"))
        to_train, to_validate = (under_class_numbers(part, self.class_names) for part in parts)
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
        """Keep the classifier, in a folder or in one zip; what for and what is in it says `transfer.artifact`.

        It is written in one step: until it is whole, an artifact that was there stays. Which layers train is not kept;
        LoRA's updates are added to the weights.

        Args:
            path: a folder, or a file that ends in `.zip`. An artifact that is there is replaced.

        Raises:
            ArtifactError: a `ValueError`, if something else is at `path`, or if the model is none that can be loaded
                again without running code: an opened ViT or DeiT, or an image classifier of keras_hub, not quantized.
            OSError: if it cannot be written.
        """
        with turn(self.model):
            artifact.save(path, self.model, self.preprocessing, self.class_names, self.provenance, self.metrics)

    @classmethod
    def load(cls, path: str | Path) -> "TransferClassifier":
        """The classifier that `save` kept, on any backend. No code of the file is run, nothing is unpacked.

        Args:
            path: a folder, or a zip.

        Returns:
            A `TransferClassifier`.

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
        return count_trainable(self.model).total

    @property
    def num_trainable(self) -> int:
        """How many of them train."""
        return count_trainable(self.model).trainable

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Say what this is: the model part by part, with how many of its parameters train.

        Args:
            print_fn: called with each line.
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
    """An evaluation without what grows with the number of classes, or with its square."""
    return {name: value for name, value in found.to_json().items() if name not in ("per_class", "confusion")}
