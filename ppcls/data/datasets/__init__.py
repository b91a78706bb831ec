"""Data sets: which pictures there are, and the class of each."""

from ppcls.data.datasets.base import PictureDataset
from ppcls.data.datasets.cifar import Cifar10, Cifar100
from ppcls.data.datasets.csv_file import CSVDataset
from ppcls.data.datasets.folders import PICTURE_SUFFIXES
from ppcls.data.datasets.huggingface import HuggingFaceDataset
from ppcls.data.datasets.imagenet import ImageFolder, ImageNetDataset
from ppcls.data.datasets.lmdb_file import LMDBDataset
from ppcls.data.datasets.multilabel import MultiLabelDataset

__all__ = [
    "PICTURE_SUFFIXES",
    "CSVDataset",
    "Cifar10",
    "Cifar100",
    "HuggingFaceDataset",
    "ImageFolder",
    "ImageNetDataset",
    "LMDBDataset",
    "MultiLabelDataset",
    "PictureDataset",
]
