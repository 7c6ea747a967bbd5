"""What `kerasext predict` reads: the rows, and the ids and targets beside them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.cli import saved_model
from kerasext.cli.inputs import by_input, numbers_or_text, open_arrays, open_column, split_path
from kerasext.cli.messages import InputError, printable, say

if TYPE_CHECKING:
    import keras

    from kerasext.inference import ImageFolder

_FOLDERS = "folders"  # for `--targets`
_COLOR_MODES = {1: "grayscale", 3: "rgb", 4: "rgba"}  # by the number of channels


class PredictInput:
    """What is predicted, and what stands beside it."""

    def __init__(self, args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        self._args = args
        self._arrays: dict[str, Any] = {}
        self._images: ImageFolder | None = None
        self._path, dataset = split_path(args.input)
        # Without the folders above, whose names may be those of users and machines.
        self.name = self._path.resolve().name + (f":{dataset}" if dataset else "")
        self._has_folder_targets = self._path.is_dir() and args.targets == _FOLDERS
        if not self._path.is_dir():
            self._arrays = open_arrays(args.input, stack)
        options = (args.ids, None if self._has_folder_targets else args.targets)
        self.ids, self.targets = (
            None if option is None else open_column(option, self._arrays, args.input, stack)
            for option in options
        )
        if self.targets is not None:
            self.targets = numbers_or_text(self.targets)

    def rows_for(self, model: keras.Model) -> Any:
        """The rows as a model takes them."""
        if self._path.is_dir():
            return self._images_for(model)
        found = by_input(self._arrays, saved_model.input_names(model))
        rows = saved_model.as_structure(model, found)
        saved_model.check_rows(model, rows)
        return rows

    def count(self, x: Any) -> int:
        """The number of rows."""
        from kerasext.inference import count_rows  # noqa: PLC0415 - needs Keras

        return count_rows(x)

    def name_classes(self, model: keras.Model) -> None:
        """Gives a model that has no names of classes those of the folders that are the targets."""
        task = (
            model.prediction_metadata()["task"] if hasattr(model, "prediction_metadata") else None
        )
        is_one_class = task in ("classifier", "binary")
        if self._has_folder_targets and self._images and is_one_class and not model.class_names:
            model.class_names = self._images.class_names

    def _images_for(self, model: keras.Model) -> ImageFolder:
        from kerasext.inference import ImageFolder  # noqa: PLC0415 - needs Keras

        *size, channels = saved_model.image_shape(model, self._args.image_size)
        if channels not in _COLOR_MODES:
            raise InputError(
                "A model that predicts images takes 1 channel (gray), 3 (RGB) or 4 (RGBA), on the "
                f"last axis. Received: an input of shape {(*size, channels)}"
            )
        self._images = images = ImageFolder(
            self._path,
            class_names=self._class_names(model) if self._has_folder_targets else None,
            color_mode=_COLOR_MODES[channels],
            image_size=(size[0], size[1]),
            skip_bad=self._args.skip_bad,
        )
        if images.skipped:
            self._leave_out(images)
        if self.ids is None:
            self.ids = images.paths
        if self._has_folder_targets:
            if images.labels is None:
                outside = next(path for path in images.paths if "/" not in path)
                raise InputError(
                    "--targets folders needs each image in a folder with the name of its class, as "
                    f"photos/cat/1.jpg. Received: the image '{printable(outside)}'"
                )
            self.targets = images.labels
        return images

    def _leave_out(self, images: ImageFolder) -> None:
        """Lists the images that were skipped, and leaves them out of the ids and targets."""
        found = len(images) + len(images.skipped)
        say(f"skipped: {len(images.skipped):,} of {found:,} images can't be read:")
        for image in images.skipped:
            say(f"  {printable(image.path)}: {printable(image.reason)}")
        positions = [image.position for image in images.skipped]
        self.ids, self.targets = (
            # A column may have been made without them.
            np.delete(np.asarray(column), positions, axis=0)
            if column is not None and len(column) == found
            else column
            for column in (self.ids, self.targets)
        )

    def _class_names(self, model: keras.Model) -> Any:
        """The names of the classes in the order of training, `None` if they are not known."""
        names = self._args.class_names or getattr(model, "class_names", None)
        if isinstance(names, Mapping):
            raise InputError(
                "--targets folders needs a model with one output. "
                f"Received: names of classes for each of {sorted(names)}"
            )
        return names
