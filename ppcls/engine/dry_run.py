"""A run of one batch, to see that everything works before it takes days."""

from __future__ import annotations

import dataclasses
import signal
import tempfile

from ppcls.config import Config
from ppcls.engine.distributed import World
from ppcls.engine.handler import Handler
from ppcls.engine.handlers import default_handlers
from ppcls.engine.trainer import Trainer
from ppcls.errors import Stopped


class _OneEpoch(Handler):
    """Ends the run after its first epoch, and evaluates if that was not due."""

    def epoch_end(self, trainer: Trainer) -> None:
        """Does what the last epoch of a run does."""
        trainer.stop("this is a dry run")
        if trainer.eval_reader is not None and trainer.state.metric is None:
            trainer.evaluate()

    def fit_end(self, trainer: Trainer) -> None:
        """Says that all went well."""
        saved = ", ".join(sorted(trainer.saved))
        trainer.logger.info(f"dry run: all works; it saved {saved}, which is removed now")


def dry_run(config: Config) -> None:
    """One step of training and one batch of validation through everything, saving included.

    Results go to a folder that is removed at the end.

    Raises:
        PPClsError: what would have ended the run.
    """
    with tempfile.TemporaryDirectory(prefix="ppcls_dry_run_") as folder:
        section = dataclasses.replace(
            config.Global, output_dir=folder, use_visualdl=False, trackers=[]
        )
        config = dataclasses.replace(config, Global=section)
        handlers = [*default_handlers(config, World.from_environment()), _OneEpoch()]
        try:
            Trainer(config, handlers, max_batches=section.update_freq).fit()
        except Stopped as stop:
            name = signal.Signals(stop.exit_code - 128).name
            message = f"the dry run was stopped by {name}; it keeps nothing"
            raise Stopped(message, stop.exit_code - 128) from None
