"""A run on the disk: what a checkpoint of it holds, and how it goes on from one."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ppcls.engine.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from ppcls.engine.model import check_arch
from ppcls.errors import WeightsError
from ppcls.weights import load_weights
from ppcls.weights.translate import translate_groups, translate_slots

if TYPE_CHECKING:
    from ppcls.engine.trainer import Trainer


def save_run(trainer: Trainer, name: str) -> None:
    """Writes the checkpoint ``name`` of a run.

    Raises:
        TrainingError: the weights are lost, and would take the place of good ones.
    """
    config, averaging, group = trainer.config, trainer.averaging, trainer.group
    state = {
        **asdict(trainer.state),
        "steps_per_epoch": trainer.reader.batches_in(trainer.state.epoch),
        "arch": {"name": config.network.name, **config.network.arguments},
        "class_names": trainer.reader.dataset.class_names,
        # Dropout and augmentation are drawn from these two, the epoch, and the sample's or batch's
        # number, so they are the whole state of everything random.
        "random": {"seed": config.Global.seed, "processes": trainer.world.size},
        "weights": "trained" if averaging is None else averaging.label,
        "handlers": {type(h).__name__: s for h in trainer.handlers if (s := h.state())},
        "parts": {key: s for key, part in trainer.parts().items() if (s := part.state())},
        "versions": _versions(),
    }
    arrays = {key: array for h in trainer.handlers for key, array in h.arrays().items()}
    networks = {} if group is None else group.arrays()
    optimizer = trainer.optimizer.state_dict()
    with trainer.scored():
        folder = trainer.folder / name
        save_checkpoint(folder, trainer.net, optimizer, state, arrays, networks)


def open_run(trainer: Trainer, source: str) -> Checkpoint:
    """The checkpoint that ``Global.checkpoints`` names, with its weights loaded.

    Its arrays are named as the network's parameters afterwards.

    Raises:
        WeightsError: it is no checkpoint, is damaged, or is of another network.
    """
    checkpoint = open_checkpoint(source)
    check_arch(checkpoint.state, trainer.config)
    naming = load_weights(trainer.net, checkpoint.weights).naming
    if trainer.group is not None:
        trainer.group.load(checkpoint.networks)
    return replace(
        checkpoint,
        optimizer=translate_slots(trainer.net, checkpoint.optimizer, naming),
        arrays=translate_groups(trainer.net, checkpoint.arrays, naming),
    )


def resume_run(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Sets the optimizer, and how far the run has come.

    Raises:
        WeightsError: the optimizer's state does not fit, or the epoch has other steps now.
    """
    trainer.optimizer.load_state_dict(checkpoint.optimizer)
    state = checkpoint.state
    steps = state["epoch"] * len(trainer.reader)  # for checkpoints that do not say
    known = {name: state[name] for name in asdict(trainer.state) if name in state}
    trainer.state = replace(trainer.state, **{"global_step": steps, **known})
    place = f"after epoch {trainer.state.epoch}"
    if trainer.state.step_in_epoch:
        _check_same_steps(trainer, state)
        place = f"in epoch {trainer.state.epoch}, after step {trainer.state.step_in_epoch}"
    trainer.logger.info(f"resumed from {checkpoint.weights.parent}, {place}")
    seed, before = trainer.config.Global.seed, state.get("random", {}).get("seed")
    if before not in (seed, None):
        message = f"Global.seed is {seed}, the checkpoint's {before}"
        trainer.logger.warning(f"{message}: the run goes on with another order of samples")


def restore_parts(trainer: Trainer, checkpoint: Checkpoint | None) -> None:
    """Gives handlers and parts the state of the checkpoint, or an empty one without.

    Raises:
        WeightsError: it holds averages, and this run does not average.
    """
    state = {} if checkpoint is None else checkpoint.state
    arrays = {} if checkpoint is None else checkpoint.arrays
    if arrays and trainer.averaging is None:
        message = f"holds averaged weights ({state.get('weights')}) beside those in training"
        raise WeightsError(
            f"{trainer.config.Global.checkpoints}: {message}: go on with the section EMA or "
            "Average that the run had, or start from these weights by Global.pretrained_model"
        )
    for handler in trainer.handlers:
        if arrays:
            handler.restore_arrays(trainer, arrays)
        handler.restore(state.get("handlers", {}).get(type(handler).__name__, {}))
    for key, part in trainer.parts().items():
        part.restore(state.get("parts", {}).get(key, {}))


def _check_same_steps(trainer: Trainer, state: dict[str, Any]) -> None:
    before, now = state["steps_per_epoch"], trainer.reader.batches_in(trainer.state.epoch)
    if before != now:
        raise WeightsError(
            f"the checkpoint was saved within an epoch of {before} steps, and an epoch of this "
            f"run has {now}: go on with the same samples, batch size and number of processes"
        )


def _versions() -> dict[str, str]:
    import paddle

    from ppcls import __version__

    return {"ppcls": __version__, "paddle": paddle.__version__}
