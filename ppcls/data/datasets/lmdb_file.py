"""Pictures in an LMDB database, under the names that a list gives them."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ppcls.data.datasets.base import PictureDataset, Table, existing
from ppcls.data.datasets.checks import Problems, note_wrong_labels
from ppcls.data.datasets.extras import optional
from ppcls.data.datasets.listfile import Entries, encoded, parse
from ppcls.data.transforms.base import Transform
from ppcls.errors import DataError
from ppcls.registry import DATASETS, TRANSFORMS, Many

LIST_KEY = b"__list__"
PICKLED_KEYS = (b"__keys__", b"__len__")


@DATASETS.register()
class LMDBDataset(PictureDataset):
    """Pictures in an LMDB database; needs the package ``lmdb``.

    A key is the path of a picture as the list writes it, its value the whole encoded file: the
    layout that OpenMMLab's LMDB backend reads too. The list is a file as ImageNetDataset takes
    it, or stands in the database under the key ``__list__``:

        with lmdb.open("train.lmdb", map_size=2**40) as database, database.begin(write=True) as out:
            for path in paths:
                out.put(path.encode(), (root / path).read_bytes())
            out.put(b"__list__", list_file.read_bytes())

    Layouts whose values are pickles are refused, as opening one can run any code.

    Args:
        lmdb_path: the database: a folder with ``data.mdb``, or a file.
        cls_label_path: list file, one ``<key> <label>`` a line, UTF-8; None reads the list in
            the database.
        transform_ops: what happens to each picture; None decodes only.
        delimiter: what separates key and label; None is any run of blanks and tabs.
        relabel: replaces the labels of this list by 0, 1, ... in their order.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network; labels have to be below it.

    Raises:
        DataError: there is no such database, or problems in its list, such as a key that is not
            there: the first 10 are shown as ``list:line: ...``.
        EnvironmentProblem: the package is not installed.
        ArgumentError: an empty ``delimiter``.
    """

    def __init__(
        self,
        lmdb_path: str,
        cls_label_path: str | None = None,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        delimiter: str | None = None,
        relabel: bool = False,
        on_error: Literal["stop", "skip"] = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
    ):
        database = Database.at(lmdb_path)
        table = _table(database, cls_label_path, delimiter, relabel, class_num)
        # Each process that reads opens it anew: an open database must not go through a fork.
        database.close()
        super().__init__(Values(database, table), transform_ops, on_error, max_bad_ratio)


def _table(
    database: Database,
    cls_label_path: str | None,
    delimiter: str | None,
    relabel: bool,
    class_num: int | None,
) -> Table:
    """Keys as paths, and labels."""
    inside = f"{database.path}/{LIST_KEY.decode()}"
    name = inside if cls_label_path is None else cls_label_path
    problems = Problems(name)
    entries = parse(io.BytesIO(_list(database, cls_label_path)), encoded(delimiter), problems)
    labels = entries.labels
    if relabel:
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    note_wrong_labels(labels, class_num, entries.lines, problems)
    problems.add_rows(
        _missing(database, entries),
        entries.lines,
        lambda row: f"expected the key {_key(entries, row)!r} in '{database.path}', received none",
    )
    problems.report()
    if not len(labels):
        raise DataError(f"{name}: expected lines '<key> <label>', received an empty list")
    return Table(
        database.path,
        entries.paths,
        entries.ends,
        labels,
        list_name=Path(name).name,
        lines=entries.lines,
    )


class Database:
    """An LMDB database that opens itself in every process that reads.

    LMDB lets a process open a database once, so there is one object for each path; see :meth:`at`.
    """

    _known: ClassVar[weakref.WeakValueDictionary[str, Database]] = weakref.WeakValueDictionary()

    def __init__(self, path: str):
        self.path = path
        self._library = optional("lmdb", "lmdb")
        self._environment: Any = None
        self._process = 0

    @classmethod
    def at(cls, path: str) -> Database:
        """The database of this path.

        Raises:
            DataError: there is none.
            EnvironmentProblem: the package ``lmdb`` is not installed.
        """
        real = os.path.realpath(path)
        database = cls._known.get(real)
        if database is None:
            database = cls._known[real] = cls(path)
        database._opened()
        return database

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        with self.reading() as transaction:
            return transaction.get(key)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """A transaction.

        Raises:
            DataError: the database cannot be opened or is damaged.
        """
        try:
            with self._opened().begin() as transaction:
                yield transaction
        except self._library.Error as error:
            raise DataError(f"expected an LMDB database at '{self.path}': {error}") from None

    def holds(self, key: bytes, transaction: Any) -> bool:
        """Whether there is such a key."""
        if not 0 < len(key) <= self._opened().max_key_size():
            return False
        return transaction.cursor().set_key(key)

    def close(self) -> None:
        """Closes it in this process; the next read opens it."""
        if self._environment is not None:
            self._environment.close()
        self._environment = None

    def _opened(self) -> Any:
        if self._process != os.getpid():
            self.close()  # what a fork left; without locks that concerns this process only
        if self._environment is None:
            try:
                self._environment = self._library.open(
                    self.path,
                    subdir=Path(self.path).is_dir(),
                    readonly=True,
                    create=False,
                    lock=False,  # it is not written to, and may be on a disk that is read-only
                    readahead=False,  # pictures are read in random order
                )
            except self._library.Error as error:
                raise DataError(
                    f"lmdb_path: expected an LMDB database at '{self.path}': {error}"
                ) from None
            self._process = os.getpid()
        return self._environment


@dataclass(frozen=True)
class Values:
    """The values of a database's keys: a :class:`~ppcls.data.datasets.base.Source`.

    Attributes:
        database: where they are.
        table: the keys, as its paths, and the labels.
    """

    database: Database
    table: Table

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]."""
        return self.table.labels

    @property
    def class_names(self) -> list[str] | None:
        """None: a list does not say."""
        return self.table.class_names

    def read(self, row: int) -> bytes:
        """The value of the key; raises DataError if it has gone."""
        value = self.database.get(_key(self.table, row))
        if value is None:
            raise DataError("expected a value, received none")
        return value

    def path(self, row: int) -> str:
        """Database and key, as if it were a folder."""
        return f"{self.database.path}/{os.fsdecode(_key(self.table, row))}"

    def describe(self, row: int) -> str:
        """The same, and the line of the list."""
        table = self.table
        line = 0 if table.lines is None else table.lines[row]
        return f"{self.path(row)} ({table.list_name}:{line})"


def _key(entries: Entries | Table, row: int) -> bytes:
    start = int(entries.ends[row - 1]) if row else 0
    return entries.paths[start : int(entries.ends[row])]


def _list(database: Database, cls_label_path: str | None) -> bytes:
    if cls_label_path is not None:
        return existing(cls_label_path, "file", "cls_label_path").read_bytes()
    content = database.get(LIST_KEY)
    if content is not None:
        return content
    if any(database.get(key) is not None for key in PICKLED_KEYS):
        raise DataError(
            f"lmdb_path: expected encoded pictures as values, received '{database.path}', whose"
            " keys '__keys__' or '__len__' belong to a layout of pickles: opening one can run any"
            " code; write it anew with the files' bytes as values"
        )
    raise DataError(
        f"lmdb_path: expected a list under the key '{LIST_KEY.decode()}' of '{database.path}', or"
        " cls_label_path, received neither"
    )


def _missing(database: Database, entries: Entries) -> np.ndarray:
    with database.reading() as transaction:
        there = (
            database.holds(_key(entries, row), transaction) for row in range(len(entries.ends))
        )
        return np.flatnonzero(~np.fromiter(there, bool, len(entries.ends)))
