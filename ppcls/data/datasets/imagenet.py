"""The two data sets that a configuration names: from a list file, or from folders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ppcls.data.datasets.base import PictureDataset
from ppcls.data.datasets.folders import read_folders
from ppcls.data.datasets.listfile import read_list
from ppcls.data.transforms.base import Transform
from ppcls.errors import ArgumentError
from ppcls.registry import DATASETS, TRANSFORMS, Many


@DATASETS.register("ImageNetDataset", "ClsDataset")
class ImageNetDataset(PictureDataset):
    """Pictures and labels from a list file; without one, from a folder per class.

    Args:
        image_root: folder that the paths of the list are relative to.
        cls_label_path: list file, one ``<path> <label>`` a line, UTF-8; see
            :func:`ppcls.data.datasets.listfile.read_list`. None reads ``image_root`` as
            :class:`ImageFolder` does.
        transform_ops: what happens to each picture; None decodes only.
        delimiter: what separates path and label; None is any run of blanks and tabs.
        relabel: replaces the labels of this list by 0, 1, ... in their order. Training and
            evaluation agree only if both lists hold the same labels.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        check_files: whether a path of the list without a file is an error now; each folder is
            listed once for that, and no file is asked for. False opens the list alone.
        class_num: number of classes of the network; labels have to be below it.
        mode: which of ``train/`` and ``val/`` is read if there is no list.

    Raises:
        DataError: something of the data set is missing or wrong.
        ArgumentError: arguments that do not go together.
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str | None = None,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        delimiter: str | None = None,
        relabel: bool = False,
        on_error: Literal["stop", "skip"] = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        check_files: bool = True,
        *,
        class_num: int | None = None,
        mode: Literal["Train", "Eval"] = "Train",
    ):
        if cls_label_path is None:
            if relabel:
                raise ArgumentError(
                    "relabel", "expected false without cls_label_path, received true"
                )
            if not check_files:
                raise ArgumentError(
                    "check_files", "expected true without cls_label_path, received false"
                )
            table = read_folders(image_root, mode, class_num)
        else:
            table = read_list(
                image_root, cls_label_path, delimiter, relabel, class_num, check_files
            )
        super().__init__(table, transform_ops, on_error, max_bad_ratio)


@DATASETS.register()
class ImageFolder(PictureDataset):
    """Pictures in one folder per class; needs no list.

    Args:
        image_root: folder with the class folders, or with ``train/`` and ``val/`` that hold
            them; see :func:`ppcls.data.datasets.folders.read_folders`.
        transform_ops: what happens to each picture; None decodes only.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network; there may not be more folders.
        mode: which of ``train/`` and ``val/`` is read.

    Raises:
        DataError: something of the data set is missing or wrong.
    """

    def __init__(
        self,
        image_root: str,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        on_error: Literal["stop", "skip"] = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
        mode: Literal["Train", "Eval"] = "Train",
    ):
        table = read_folders(image_root, mode, class_num)
        super().__init__(table, transform_ops, on_error, max_bad_ratio)
