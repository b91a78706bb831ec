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
        from paddle import inference

        program, parameters = Path(folder) / PROGRAM_FILE, Path(folder) / PARAMETERS_FILE
        config = inference.Config(str(program), str(parameters))
        config.disable_glog_info()
        config.disable_gpu()
        with _stdout_to_stderr():
            self._predictor = inference.create_predictor(config)
        [input_name] = self._predictor.get_input_names()
        [output_name] = self._predictor.get_output_names()
        self._input = self._predictor.get_input_handle(input_name)
        self._output = self._predictor.get_output_handle(output_name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images [N, 3, H, W] float32 -> logits [N, C]."""
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
