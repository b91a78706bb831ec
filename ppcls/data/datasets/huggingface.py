"""Pictures in a data set of Hugging Face's library ``datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ppcls.data.datasets.base import Mode, PictureDataset, existing
from ppcls.data.datasets.extras import optional
from ppcls.data.transforms.base import Transform
from ppcls.errors import ArgumentError, DataError, suggestion
from ppcls.registry import DATASETS, TRANSFORMS, Many

SPLITS: dict[str, tuple[str, ...]] = {
    "Train": ("train",),
    "Eval": ("validation", "valid", "val", "test"),
}
PARQUET = ".parquet"


@DATASETS.register()
class HuggingFaceDataset(PictureDataset):
    """Pictures in a folder that Hugging Face's ``datasets`` wrote; needs that package.

    The folder is one that ``save_to_disk`` wrote, or one of Parquet files as the hub stores them
    (``train-00000-of-00002.parquet``, ``train/0000.parquet``). Nothing is downloaded. Of Parquet
    files the library makes a copy that can be read in any order in its cache
    (``HF_DATASETS_CACHE``).

    Args:
        data_path: the folder.
        transform_ops: what happens to each picture; None decodes only.
        split: which part; None trains on ``train`` and evaluates on the first of ``validation``,
            ``valid``, ``val`` and ``test``.
        image_column: column of pictures: the feature Image, or whole files as binary values.
        label_column: column of class indices; the feature ClassLabel also names the classes.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network; labels have to be below it.
        mode: which split is meant if none is given.

    Raises:
        DataError: the folder, or something in it, is missing or wrong.
        EnvironmentProblem: the package is not installed.
        ArgumentError: there is no such split or column, or it is of another kind.
    """

    def __init__(
        self,
        data_path: str,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        split: str | None = None,
        image_column: str = "image",
        label_column: str = "label",
        on_error: Literal["stop", "skip"] = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
        mode: Mode = "Train",
    ):
        source = Rows(data_path, split, mode, image_column, label_column)
        highest = source.labels.max()
        if class_num is not None and highest >= class_num:
            raise DataError(
                f"{data_path}: expected labels below Arch.class_num {class_num}, received {highest}"
            )
        super().__init__(source, transform_ops, on_error, max_bad_ratio)


class Rows:
    """The rows of one split: a :class:`~ppcls.data.datasets.base.Source`.

    They are read from files that are mapped into memory, which a fork does not copy.
    """

    def __init__(
        self, data_path: str, split: str | None, mode: Mode, image_column: str, label_column: str
    ):
        library = optional("datasets", "datasets")
        folder = existing(data_path, "folder", "data_path")
        rows, name = _load(library, folder, split, mode)
        self._place = f"{data_path}/{name}" if name else data_path
        for argument, column in (("image_column", image_column), ("label_column", label_column)):
            if column not in rows.features:
                raise ArgumentError(
                    argument,
                    f"expected one of {', '.join(map(repr, rows.features))}, received"
                    f" {column!r}{suggestion(column, rows.features)}",
                )
        self.labels = _labels(rows, label_column, self._place)
        self.class_names = getattr(rows.features[label_column], "names", None)
        self._rows = _undecoded(library, rows, image_column)
        self._column = image_column

    def read(self, row: int) -> bytes:
        """The file of a picture; raises DataError if the row holds none."""
        value = self._rows[row][self._column]
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value["path"]:
            data = Path(value["path"]).read_bytes()
        if data is None:
            raise DataError("expected a picture, received null")
        return data

    def path(self, row: int) -> str:
        """Folder, split and number of the row."""
        return f"{self._place}/{row}"

    def describe(self, row: int) -> str:
        """The same in words."""
        return f"{self._place}: row {row}"


def _load(library: Any, folder: Path, split: str | None, mode: Mode) -> tuple[Any, str]:
    """The rows of a split, and its name if there are several."""
    wanted = (split,) if split is not None else SPLITS[mode]
    tables = sorted(folder.rglob(f"*{PARQUET}"))
    if tables:
        name, files = _of_split(folder, tables, wanted)
        return library.Dataset.from_parquet([str(file) for file in files]), name
    try:
        loaded = library.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"data_path: expected a folder of datasets.save_to_disk or of {PARQUET} files at"
            f" '{folder}': {error}"
        ) from None
    if not isinstance(loaded, dict):
        return loaded, ""
    name = _choose(wanted, list(loaded))
    return loaded[name], name


def _of_split(folder: Path, files: list[Path], wanted: tuple[str, ...]) -> tuple[str, list[Path]]:
    """The Parquet files of a split; all files, if their names tell of no split at all."""
    by_split: dict[str, list[Path]] = {}
    known = {*wanted, *(name for names in SPLITS.values() for name in names)}
    for file in files:
        parents = file.relative_to(folder).parent.parts
        stem = file.stem.split("-")[0]
        name = next((part for part in (stem, *reversed(parents)) if part in known), None)
        if name is not None:
            by_split.setdefault(name, []).append(file)
    if not by_split and wanted in SPLITS.values():
        return "", files
    name = _choose(wanted, list(by_split))
    return name, by_split[name]


def _choose(wanted: tuple[str, ...], splits: list[str]) -> str:
    for name in wanted:
        if name in splits:
            return name
    raise ArgumentError(
        "split",
        f"expected one of the splits {', '.join(map(repr, splits))}, received"
        f" {' or '.join(map(repr, wanted))}",
    )


def _labels(rows: Any, column: str, place: str) -> np.ndarray:
    """int64 [N]."""
    if not len(rows):
        raise DataError(f"{place}: expected rows, received none")
    labels = np.asarray(rows.with_format("numpy", columns=[column])[:][column])
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ArgumentError(
            "label_column",
            f"expected class indices in {column!r} (for names, class_encode_column of datasets"
            f" makes them), received {rows.features[column]}",
        )
    if labels.min() < 0:
        row = int(np.argmax(labels < 0))
        raise DataError(f"{place}: row {row}: expected a label >= 0, received {labels[row]}")
    return labels.astype(np.int64)


def _undecoded(library: Any, rows: Any, column: str) -> Any:
    feature = rows.features[column]
    if isinstance(feature, library.Image):
        rows = rows.cast_column(column, library.Image(decode=False))
    elif getattr(feature, "dtype", "") not in ("binary", "large_binary"):
        raise ArgumentError("image_column", f"expected pictures in {column!r}, received {feature}")
    return rows.select_columns([column])
