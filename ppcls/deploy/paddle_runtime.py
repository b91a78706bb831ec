"""Paddle Inference as the runtime of an exported folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ppcls.deploy.exported import PARAMETERS_FILE, PROGRAM_FILE


class PaddleRuntime:
    """Runs an exported program on the CPU. Not to be shared by threads.

    Args:
        folder: an exported folder whose files were verified.
    """

    def __init__(self, folder: str | Path):
        self._files = [str(Path(folder) / name) for name in (PROGRAM_FILE, PARAMETERS_FILE)]
        self._onednn = True
        try:
            self._open()
        except Exception:
            self._do_without_onednn()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images [N, 3, H, W] float32 -> logits [N, C]."""
        try:
            return self._run(images)
        except Exception:
            if not self._onednn:
                raise
            self._do_without_onednn()
            return self._run(images)

    def _do_without_onednn(self) -> None:
        """Opens the program anew: Paddle 3.3's oneDNN cannot do all that transformers transpose."""
        self._onednn = False
        self._open()

    def _open(self) -> None:
        from paddle import inference

        config = inference.Config(*self._files)
        config.disable_glog_info()
        config.disable_gpu()
        if not self._onednn:
            config.disable_mkldnn()
        with _stdout_to_stderr():
            self._predictor = inference.create_predictor(config)
        [input_name] = self._predictor.get_input_names()
        [output_name] = self._predictor.get_output_names()
        self._input = self._predictor.get_input_handle(input_name)
        self._output = self._predictor.get_output_handle(output_name)

    def _run(self, images: np.ndarray) -> np.ndarray:
        self._input.reshape(images.shape)
        self._input.copy_from_cpu(np.ascontiguousarray(images))
        self._predictor.run()
        return self._output.copy_to_cpu()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Paddle's C++ prints notices to standard output, which is for answers."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
