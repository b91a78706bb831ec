"""Training: a short loop of named events. What else happens in a run are handlers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.config import Config
from ppcls.data.loader import Batch, DataLoader
from ppcls.engine import logging as log
from ppcls.engine.batch import Mixing, ToTensors, build_reader, check_class_names, check_folds
from ppcls.engine.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from ppcls.engine.device import require_paddle, set_device, use_kernels
from ppcls.engine.distributed import World
from ppcls.engine.evaluator import evaluate, iteration_reporter
from ppcls.engine.failure import forget_failure
from ppcls.engine.handler import Handler
from ppcls.engine.handlers import default_handlers
from ppcls.engine.model import build_metric, check_arch, create_model, load_for_run
from ppcls.errors import EnvironmentProblem, TrainingError, WeightsError
from ppcls.losses import CombinedLoss
from ppcls.registry import Spec
from ppcls.weights import load_weights
from ppcls.weights.translate import translate_slots

if TYPE_CHECKING:
    import paddle


@dataclass
class TrainState:
    """How far a run has come; saved in every checkpoint.

    Attributes:
        epoch: the epoch in progress, or the last finished one between epochs; from 1.
        step_in_epoch: steps of the epoch in progress so far; 0 between epochs.
        global_step: optimizer steps so far.
        metric: result of the last evaluation (the first metric of Metric.Eval).
        best_metric, best_epoch: the best result so far, and when.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    global_step: int = 0
    metric: float | None = None
    best_metric: float | None = None
    best_epoch: int = 0


@dataclass
class Step:
    """One optimizer step, for handlers to look at.

    Attributes:
        index: number of the iteration in its epoch, from 0.
        targets: as the loss had them: class indices [N], or probabilities [N, C].
        lr: the learning rate that the step used.
        losses: named scalars, ``loss`` is their sum.
    """

    index: int
    samples: int
    lr: float
    logits: paddle.Tensor
    targets: paddle.Tensor
    losses: dict[str, paddle.Tensor]


class Trainer:
    """Trains as a configuration says, and writes ``<output_dir>/<Arch.name>/``.

    Args:
        config: a checked configuration.
        handlers: what happens beside the loop; ``default_handlers()`` if not given.

    Raises:
        ConfigError, DataError, WeightsError, EnvironmentProblem: before any training.
    """

    def __init__(self, config: Config, handlers: Sequence[Handler] | None = None):
        needed = config.require("DataLoader.Train", "Loss.Train", "Optimizer", purpose="training")
        self._evaluates = config.Global.eval_during_train
        if self._evaluates:
            config.require("DataLoader.Eval", "Metric.Eval", purpose="evaluation during training")
        require_paddle()
        self.config = config
        self.world = World.from_environment()
        self.folder = Path(config.Global.output_dir) / config.Arch.name
        self._open_folder()
        self.state = TrainState()
        self._handler_states: dict[str, Any] = {}
        self._build_readers()
        self._build_network(*needed[1:])
        self._restore()
        self._use_kernels()
        chosen = default_handlers(config, self.world) if handlers is None else handlers
        self.handlers = list(chosen)
        self.world.connect()
        self.model = self._parallel()

    def fit(self) -> TrainState:
        """Trains to ``Global.epochs``; returns how far the run came and its best result."""
        try:
            if self.is_done():
                self.logger.info(
                    f"nothing to train: the checkpoint has reached epoch {self.state.epoch}, and "
                    f"Global.epochs is {self.config.Global.epochs}"
                )
                return self.state
            self._write_config()
            self.emit("fit_start")
            for handler in self.handlers:
                handler.restore(self._handler_states.get(type(handler).__name__, {}))
            while not self.is_done():
                if not self.state.step_in_epoch:
                    self.state.epoch += 1
                self._train_epoch()
            self.emit("fit_end")
        finally:
            self.emit("close")
            self.close()
        return self.state

    def is_done(self) -> bool:
        """Whether ``Global.epochs`` are over."""
        unfinished = self.state.step_in_epoch > 0
        return self.state.epoch >= self.config.Global.epochs + unfinished

    def _train_epoch(self) -> None:
        self.model.train()
        self.emit("epoch_start")
        for batch in self.reader.epoch(self.state.epoch, start=self.state.step_in_epoch):
            self.emit("step_start")
            step = self._step(batch)
            self.state.step_in_epoch = batch.number + 1
            self.emit("step_end", step)
        self.state.step_in_epoch = 0
        self.emit("epoch_end")

    def _step(self, batch: Batch) -> Step:
        lr = self.optimizer.set_step(self.state.global_step)
        images, targets = self._mixing(*self._to_tensors(batch), self.state.epoch, batch.number)
        logits = self.model(images)
        losses = self.loss(logits, targets)
        losses["loss"].backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.state.global_step += 1
        # Detached: what the backward pass needed is gone before the next step takes as much.
        losses = {name: value.detach() for name, value in losses.items()}
        return Step(batch.number, len(batch.labels), lr, logits.detach(), targets, losses)

    def evaluate(self) -> dict[str, float]:
        """Evaluates the network as it is now; all processes must call.

        Raises:
            TrainingError: the configuration says not to evaluate during training.
        """
        if self.eval_reader is None:
            raise TrainingError("Global.eval_during_train is off, so nothing was read to evaluate")
        self.world.share_buffers(self.net)
        every = self.config.Global.print_batch_step
        report = every, iteration_reporter(self.logger, self.state.epoch)
        metric = build_metric(self.config, "Eval")
        to_tensors = ToTensors(self.eval_reader.dataset.pipeline, self._kernels)
        readers = self.eval_reader, to_tensors
        return evaluate(self.net, readers, self.eval_loss, metric, self.world, report)

    def save(self, name: str) -> None:
        """Writes the checkpoint ``name``; the first process does, the others need not call.

        Raises:
            TrainingError: the weights are lost, and would take the place of good ones.
        """
        if self.world.is_first:
            state = {
                **asdict(self.state),
                "steps_per_epoch": len(self.reader),
                "arch": {"name": self.config.Arch.name, **self.config.Arch.arguments},
                "class_names": self.reader.dataset.class_names,
                # Dropout and augmentation are drawn from these two, the epoch, and the sample's
                # or step's number, so they are the whole state of everything random.
                "random": {"seed": self.config.Global.seed, "processes": self.world.size},
                "handlers": {type(h).__name__: s for h in self.handlers if (s := h.state())},
                "versions": _versions(),
            }
            save_checkpoint(self.folder / name, self.net, self.optimizer.state_dict(), state)

    def close(self) -> None:
        """Ends the reading processes and closes the log."""
        self.reader.close()
        if self.eval_reader is not None:
            self.eval_reader.close()
        log.close_logger(self.logger)

    def emit(self, event: str, *arguments: Any) -> None:
        """Tells every handler, in order, that ``event`` has come."""
        for handler in self.handlers:
            getattr(handler, event)(self, *arguments)

    def _write_config(self) -> None:
        if not self.world.is_first:
            return
        try:
            text = self.config.to_yaml()
            (self.folder / "config.yaml").write_text(text, encoding="utf-8")
        except OSError as error:
            raise EnvironmentProblem(f"cannot write to {self.folder}: {error.strerror}") from None

    # Construction --------------------------------------------------------------------------------

    def _open_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            forget_failure(self.world, self.folder)
            self.logger = log.make_logger(self.folder / "train.log", self.world.is_first)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write to {self.folder}: {error.strerror}") from None
        log.warn_of_config(self.logger, self.config)

    def _build_readers(self) -> None:
        self.reader = build_reader(self.config, "Train", self.world, self.logger)
        self._mixing = Mixing.of(self.config, self.world)
        self.eval_reader: DataLoader | None = None
        if self._evaluates:
            self.eval_reader = build_reader(self.config, "Eval", self.world, self.logger)
            check_folds(self.config, self.reader.dataset, self.eval_reader.dataset)
            names = self.eval_reader.dataset.class_names, self.reader.dataset.class_names
            check_class_names(*names)

    def _build_network(self, losses: list[Spec], optimizer: Spec) -> None:
        import paddle

        config = self.config
        set_device(config.Global.device, self.logger)
        paddle.seed(config.Global.seed)
        self.net = create_model(config.Arch.name, **config.Arch.arguments)
        pretrained = config.Arch.extra["pretrained"]
        if pretrained and not config.Global.checkpoints:
            load_for_run(self.net, pretrained, self.logger, adapt_head=True)
        self.loss = CombinedLoss([spec.build() for spec in losses])
        eval_losses = config.Loss.Eval if config.Loss else None
        self.eval_loss = CombinedLoss([s.build() for s in eval_losses]) if eval_losses else None
        self.optimizer = optimizer.build(
            epochs=config.Global.epochs, steps_per_epoch=len(self.reader), network=self.net
        )

    def _restore(self) -> None:
        section = self.config.Global
        if section.checkpoints:
            self._resume(open_checkpoint(section.checkpoints))
        elif section.pretrained_model:
            options = {"ignore_head": section.ignore_head, "adapt_head": True}
            load_for_run(self.net, section.pretrained_model, self.logger, **options)

    def _use_kernels(self) -> None:
        self._kernels = use_kernels(self.net, self.config.Global.cpu_kernels, self.logger)
        if self._kernels:
            self.optimizer.use_kernels()
        self._to_tensors = ToTensors(self.reader.dataset.pipeline, self._kernels)

    def _resume(self, checkpoint: Checkpoint) -> None:
        check_arch(checkpoint.state, self.config)
        report = load_weights(self.net, checkpoint.weights)
        self.optimizer.load_state_dict(
            translate_slots(self.net, checkpoint.optimizer, report.naming)
        )
        state = checkpoint.state
        steps = state["epoch"] * len(self.reader)  # for checkpoints that do not say
        known = {name: state[name] for name in asdict(self.state) if name in state}
        self.state = TrainState(**{"global_step": steps, **known})
        self._handler_states = state.get("handlers", {})
        place = f"after epoch {self.state.epoch}"
        if self.state.step_in_epoch:
            self._check_same_steps(state)
            place = f"in epoch {self.state.epoch}, after step {self.state.step_in_epoch}"
        self.logger.info(f"resumed from {checkpoint.weights.parent}, {place}")
        seed, before = self.config.Global.seed, state.get("random", {}).get("seed")
        if before not in (seed, None):
            message = f"Global.seed is {seed}, the checkpoint's {before}"
            self.logger.warning(f"{message}: the run goes on with another order of samples")

    def _check_same_steps(self, state: dict[str, Any]) -> None:
        before, now = state["steps_per_epoch"], len(self.reader)
        if before != now:
            raise WeightsError(
                f"the checkpoint was saved within an epoch of {before} steps, and an epoch of this "
                f"run has {now}: go on with the same samples, batch size and number of processes"
            )

    def _parallel(self) -> Any:
        if self.world.size == 1:
            return self.net
        import paddle

        return paddle.DataParallel(self.net)


def _versions() -> dict[str, str]:
    import paddle

    from ppcls import __version__

    return {"ppcls": __version__, "paddle": paddle.__version__}
