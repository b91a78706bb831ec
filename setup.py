"""Compiles the CPU kernels where there is a compiler; everything else stands in pyproject.toml."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent


class BuildKernels(build_ext):
    """A library for each instruction set; an editable installation makes that of its machine."""

    def run(self) -> None:
        """Compiles. Without a compiler the package is complete, too, and slower on a CPU."""
        build = _load_build()
        base = ROOT if self.editable_mode or self.inplace else Path(self.build_lib)
        folder = base / "ppcls" / "ops" / "prebuilt" / build.fingerprint()
        own_machine = self.editable_mode or self.inplace
        try:
            sets = [build.instruction_set()] if own_machine else build.usable_sets()
            folder.mkdir(parents=True, exist_ok=True)
            for name in sets:
                build.compile_library(name, folder / build.library_name(name))
        except build.BuildError as error:
            print(f"the CPU kernels are not compiled: {error}")  # noqa: T201

    def get_outputs(self) -> list[str]:
        """None that setuptools would have to move."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """None that setuptools would have to link."""
        return {}


def _load_build() -> ModuleType:
    """``ppcls.ops.build`` without its package, which needs Paddle."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "ppcls" / "ops" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup(
    # Only its presence counts: it marks the wheel as made for one platform.
    ext_modules=[Extension("ppcls.ops.prebuilt", sources=[], optional=True)],
    cmdclass={"build_ext": BuildKernels},
)
