"""Data sets: which pictures there are, and the class of each."""

from ppcls.data.datasets.base import PictureDataset
from ppcls.data.datasets.folders import PICTURE_SUFFIXES
from ppcls.data.datasets.imagenet import ImageFolder, ImageNetDataset

__all__ = ["PICTURE_SUFFIXES", "ImageFolder", "ImageNetDataset", "PictureDataset"]
