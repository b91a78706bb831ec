"""Operations on one picture, named and configured as the published ones."""

from ppcls.data.transforms.base import Transform

__all__ = ["Transform"]
