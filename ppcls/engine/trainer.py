"""Training: a short loop of named events. What else happens in a run are handlers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.config import Config
from ppcls.data.loader import Batch, DataLoader
from ppcls.engine import logging as log
from ppcls.engine.batch import Mixing, ToTensors, build_reader, check_class_names, check_folds
from ppcls.engine.checkpoint import Checkpoint
from ppcls.engine.device import require_paddle, set_device
from ppcls.engine.distributed import World
from ppcls.engine.evaluator import evaluate, iteration_reporter
from ppcls.engine.execution import prepare, step_model
from ppcls.engine.failure import forget_failure
from ppcls.engine.finetune import Finetuning
from ppcls.engine.handler import Handler
from ppcls.engine.handlers import default_handlers
from ppcls.engine.loss_guard import LossGuard
from ppcls.engine.model import build_metric, build_networks, load_for_run
from ppcls.engine.objective import build_loss, build_optimizer
from ppcls.engine.precision import Precision
from ppcls.engine.progressive import schedule_step
from ppcls.engine.resume import open_run, restore_parts, resume_run, save_run
from ppcls.engine.updates import Updates
from ppcls.errors import CURE, EnvironmentProblem, TrainingError
from ppcls.registry import Spec

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
    """What came of one batch, for handlers to look at.

    Attributes:
        index: number of the batch in its epoch, from 0.
        samples: pictures of the batch. Where each has several views, N is that many times as
            large, and the first ``samples`` rows are the pictures themselves.
        targets: as the loss had them: class indices [N], or probabilities [N, C].
        lr: the learning rate that the step used.
        losses: named scalars, ``loss`` is their sum.
        updated: whether the optimizer has stepped, at the end of ``Global.update_freq`` batches.
    """

    index: int
    samples: int
    lr: float
    logits: paddle.Tensor
    targets: paddle.Tensor
    losses: dict[str, paddle.Tensor]
    updated: bool


class Trainer:
    """Trains as a configuration says, and writes ``<output_dir>/<Arch.name>/``.

    Args:
        config: a checked configuration.
        handlers: what happens beside the loop; ``default_handlers()`` if not given.
        max_batches: no more batches than this of an epoch, and of an evaluation.

    Attributes:
        net: the network that is evaluated, saved and exported.
        trained: the layer that trains: ``net``, or what holds it.
        group: the networks that train together (``DistillationModel``), or None.
        model: ``trained`` as a step calls it, with the other processes.
        saved: names of the checkpoints that this run has written.
        max_batches: as given.

    Raises:
        ConfigError, DataError, WeightsError, EnvironmentProblem: before any training.
    """

    def __init__(
        self,
        config: Config,
        handlers: Sequence[Handler] | None = None,
        max_batches: int | None = None,
    ):
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
        self.saved: set[str] = set()
        self.max_batches = max_batches
        self._group = -1
        self._stopped = False
        self._checkpoint: Checkpoint | None = None
        self._build_readers()
        self._build_network(*needed[1:])
        self._load()
        self._prepare()
        chosen = default_handlers(config, self.world) if handlers is None else handlers
        self.handlers = list(chosen)
        if self._finetuning is not None:
            self.handlers.insert(0, self._finetuning)
        self.world.connect()
        self.model = self._parallel()
        self.guard = LossGuard(self)

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
            restore_parts(self, self._checkpoint)
            self._checkpoint = None  # its arrays would stay in memory
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
        """Whether ``Global.epochs`` are over, or the run was told to stop."""
        unfinished = self.state.step_in_epoch > 0
        return self._stopped or self.state.epoch >= self.config.Global.epochs + unfinished

    def stop(self, reason: str) -> None:
        """Ends the run after this epoch."""
        if not self._stopped:
            self.logger.info(f"stopping after epoch {self.state.epoch}: {reason}")
        self._stopped = True

    def batches_in(self, epoch: int) -> int:
        """How many batches an epoch has."""
        count = self.reader.batches_in(epoch)
        return min(count, self.max_batches or count)

    def schedule_step(self, batch: int) -> int:
        """The step of the learning-rate schedule that so many batches into the epoch comes next."""
        if not self.reader.varies:
            return self.state.global_step
        return schedule_step(self.reader, self.state.epoch, batch, self.config.Global.update_freq)

    def _train_epoch(self) -> None:
        self.model.train()
        self.emit("epoch_start")
        start = self.state.step_in_epoch
        is_used = start > 0
        batches = self.reader.epoch(self.state.epoch, start=start)
        for batch in islice(batches, self.batches_in(self.state.epoch) - start):
            self.emit("step_start")
            step = self._step(batch)
            self.state.step_in_epoch = batch.number + 1
            if step is not None:
                is_used = True
                self.emit("step_end", step)
        if not is_used:
            raise TrainingError(f"no batch of epoch {self.state.epoch} has a finite loss; {CURE}")
        self._update()  # the last batch may have been left out
        self.guard.read()
        self.state.step_in_epoch = 0
        self.emit("epoch_end")

    def _step(self, batch: Batch) -> Step | None:
        """Trains on a batch; None if it was left out."""
        every, number = self.config.Global.update_freq, batch.number + 1
        if self._group != (group := batch.number // every):
            self._update()  # the last batch of the group before may have been left out
            self._group = group
        is_last = number % every == 0 or number == self.batches_in(self.state.epoch)
        lr = self.optimizer.set_step(self.schedule_step(batch.number))
        images, targets = self.mixing(*self._to_tensors(batch), self.state.epoch, batch.number)
        self.guard.before_forward()
        with self._gradients_stay_here(not is_last):
            with self.precision.training():
                outputs = self.model(images)
                losses = self.loss(outputs, targets)
            if self.guard.admits(losses["loss"], batch):
                self._updates.backward(losses["loss"], batch.pictures)
                is_admitted = True
            else:
                is_admitted = False
        if is_last:
            self._update()
        if not is_admitted:
            return None
        # Detached: what the backward pass needed is gone before the next step takes as much.
        losses = {name: value.detach() for name, value in losses.items()}
        logits = (outputs if self.group is None else self.group.logits(outputs)).detach()
        return Step(batch.number, batch.pictures, lr, logits, targets, losses, is_last)

    def _update(self) -> None:
        """Has the optimizer step, if there are gradients."""
        if self._updates.is_pending:
            self._updates.step()
            self.state.global_step += 1
            self.emit("update_end")

    def _gradients_stay_here(self, do: bool) -> AbstractContextManager[Any]:
        """A context whose gradients are not exchanged yet, if ``do`` says so.

        A batch that one process leaves out would leave the others waiting for its gradients.
        """
        may = self.world.size > 1 and self.config.Global.on_nan != "skip"
        context: AbstractContextManager[Any] = self.model.no_sync() if do and may else nullcontext()
        return context

    def evaluate(self) -> dict[str, float]:
        """Evaluates the weights that count; all processes must call.

        Raises:
            TrainingError: the configuration says not to evaluate during training.
        """
        if self.eval_reader is None:
            raise TrainingError("Global.eval_during_train is off, so nothing was read to evaluate")
        every = self.config.Global.print_batch_step
        report = every, iteration_reporter(self.logger, self.state.epoch)
        metric = build_metric(self.config, "Eval")
        to_tensors = ToTensors(self.eval_reader.dataset.pipeline, self._kernels)
        readers = self.eval_reader, to_tensors
        with self.scored(), self.precision.evaluation():
            self.world.share_buffers(self.net)
            given = self.eval_loss, metric, self.world, report, self.max_batches
            return evaluate(self.net, readers, *given)

    def scored(self) -> AbstractContextManager[Any]:
        """A context in which ``net`` holds the weights that are evaluated and saved."""
        return nullcontext() if self.averaging is None else self.averaging.scored(self)

    def save(self, name: str) -> None:
        """Writes the checkpoint ``name``; the first process does, the others need not call.

        Raises:
            TrainingError: the weights are lost, and would take the place of good ones.
        """
        if self.world.is_first:
            save_run(self, name)
        self.saved.add(name)

    @property
    def averaging(self) -> Any | None:
        """The handler that averages the weights, if one does."""
        return next((handler for handler in self.handlers if hasattr(handler, "scored")), None)

    def parts(self) -> dict[str, Any]:
        """What has a state beside the handlers."""
        schedule = self.optimizer.schedule
        parts = {"schedule": schedule, "precision": self.precision, "guard": self.guard}
        return parts if self.group is None else {**parts, "networks": self.group}

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
        self.mixing = Mixing.of(self.config, self.world)
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
        self.net, self.group = build_networks(config, self.logger)
        self.trained = self.net if self.group is None else self.group
        self.loss = build_loss(config, losses, self.reader.dataset)
        eval_losses = config.Loss.Eval if config.Loss else None
        dataset = self.reader.dataset
        self.eval_loss = build_loss(config, eval_losses, dataset) if eval_losses else None
        self.precision = Precision.of(config, self.logger)
        self._finetuning = Finetuning.of(config, self.net)
        self.optimizer = build_optimizer(
            config, optimizer, self._optimized, self.reader, self.world
        )
        if self._finetuning is not None:
            self._finetuning.begin(self.optimizer, self._optimized)
        self._updates = Updates(self.optimizer, self.precision, config.Global.update_freq)

    @property
    def _optimized(self) -> Any:
        return self.net if self.group is None else self.group.optimized

    def _load(self) -> None:
        """The weights to start from, or all of the checkpoint to go on from."""
        section = self.config.Global
        self._checkpoint = open_run(self, section.checkpoints) if section.checkpoints else None
        if section.pretrained_model and self._checkpoint is None:
            options = {"ignore_head": section.ignore_head, "adapt_head": True}
            load_for_run(self.net, section.pretrained_model, self.logger, **options)
        self.precision.prepare(self.trained, self.optimizer)
        if self._checkpoint is not None:
            resume_run(self, self._checkpoint)

    def _prepare(self) -> None:
        networks = self.net, self.group
        self._kernels = prepare(self.config, *networks, self.world, self.logger)
        if self._kernels:
            self.optimizer.use_kernels()
        self._to_tensors = ToTensors(self.reader.dataset.pipeline, self._kernels)

    def _parallel(self) -> Any:
        return step_model(self.config, self.trained, self.world)
