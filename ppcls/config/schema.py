"""The sections of a configuration: every key, its type, its range, its default and its meaning.

The key names are PaddleClas's, so that its published files are read; keys of ours are marked
``ppcls``. Components (``Arch``, losses, transforms, ...) document their arguments where they are
defined. ``NO_MEANING`` and ``NOT_YET`` at the end list what published files hold beyond that.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ppcls.config.averaging import EMASection
from ppcls.config.progressive import ProgressiveSection
from ppcls.errors import ArgumentError, UnknownName
from ppcls.registry import (
    AVERAGES,
    BACKBONES,
    BATCH_TRANSFORMS,
    DATASETS,
    LOSSES,
    METRICS,
    NETWORK_GROUPS,
    OPTIMIZERS,
    POSTPROCESSES,
    SAMPLERS,
    TRACKERS,
    TRANSFORMS,
    Argument,
    Many,
    One,
    Repeats,
    Spec,
)

Positive = Annotated[int, Field(ge=1)]


def _on_or_off(value: object) -> object:
    """Undoes what YAML makes of a bare ``on`` or ``off``."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


@dataclass
class EarlyStopSection:
    """When evaluations have stopped getting better (ppcls).

    Attributes:
        patience: evaluations in a row without a better result, after which the run ends.
        min_delta: a result counts as better if it is by more than this.
    """

    patience: Positive
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass
class GlobalSection:
    """What concerns the run as a whole.

    Attributes:
        checkpoints: folder or prefix of a checkpoint to resume from.
        pretrained_model: weights to start from (train) or to use (eval, infer, export).
        ignore_head: (ppcls) load ``pretrained_model`` without its classifier.
        output_dir: results go to ``<output_dir>/<Arch.name>/``.
        device: ``gpu`` falls back to the CPU, with a warning, where Paddle sees no GPU;
            ``auto`` (ppcls) takes a GPU if there is one.
        cpu_kernels: (ppcls) ``auto`` uses the package's own operators on a CPU, and Paddle's where
            they cannot be compiled; ``on`` insists; ``off`` uses Paddle's.
        seed: of everything random: weights, order of samples, augmentation, dropout.
        epochs: the run's last epoch, also after resuming.
        save_interval: epochs between ``epoch_N`` checkpoints; ``latest`` is saved every epoch.
        eval_during_train, eval_interval, start_eval_epoch: evaluate every ``eval_interval``
            epochs from ``start_eval_epoch`` on.
        eval_every_steps: (ppcls) evaluate every so many optimizer steps instead.
        eval_before_training: (ppcls) evaluate what training starts from, too.
        early_stop: (ppcls) end the run when evaluations have stopped getting better.
        update_freq: batches that make one optimizer step; its gradient is that of one large batch.
        on_nan: (ppcls) at a loss that is not finite, ``stop``, or ``skip`` the batch.
        max_nan_skips: (ppcls) batches that ``on_nan: skip`` leaves out at most.
        train_mode: ``progressive`` trains in stages, by the transforms' ``progress_size`` and
            ``progress_magnitude``; the section ``Progressive`` does so without it.
        recompute: (ppcls) calculate blocks again in the backward pass, to need less memory.
        channels_last: (ppcls) train on maps [N, H, W, C].
        to_static: train the network as a compiled program.
        print_batch_step: iterations between log lines.
        use_visualdl: write curves for VisualDL to ``vdl/``; short for ``trackers: [visualdl]``.
        trackers: (ppcls) tools that draw curves: visualdl, tensorboard, wandb, mlflow.
        image_shape: channels, height and width of the exported network's input.
        save_inference_dir: folder of the exported model.
    """

    checkpoints: str | None = None
    pretrained_model: str | None = None
    ignore_head: bool = False
    output_dir: str = "./output"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cpu_kernels: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    epochs: Positive = 120
    save_interval: Positive = 10
    eval_during_train: bool = True
    eval_interval: Positive = 1
    start_eval_epoch: Annotated[int, Field(ge=0)] = 0
    eval_every_steps: Positive | None = None
    eval_before_training: bool = False
    early_stop: EarlyStopSection | None = None
    update_freq: Positive = 1
    on_nan: Literal["stop", "skip"] = "stop"
    max_nan_skips: Positive = 10
    recompute: bool = False
    channels_last: bool = False
    to_static: bool = False
    train_mode: Literal["progressive"] | None = None
    print_batch_step: Positive = 10
    use_visualdl: bool = False
    trackers: list[str] = field(default_factory=list)
    image_shape: list[Positive] = field(default_factory=lambda: [3, 224, 224])
    save_inference_dir: str = "./inference"

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or self.image_shape[0] != 3:
            message = f"expected [3, height, width], received {self.image_shape}"
            raise ArgumentError("image_shape", message)
        for name in self.trackers:
            try:
                TRACKERS.entry(name)
            except UnknownName as error:
                raise ArgumentError("trackers", str(error)) from None

    @property
    def tracker_names(self) -> list[str]:
        """The trackers of the run, each once."""
        return list(dict.fromkeys(["visualdl"] * self.use_visualdl + self.trackers))


@dataclass
class LossSection:
    """Losses of training and of evaluation: ``- CELoss: {weight: 1.0, epsilon: 0.1}``."""

    Train: Annotated[list[Spec] | None, Many(LOSSES)] = None
    Eval: Annotated[list[Spec] | None, Many(LOSSES)] = None


@dataclass
class MetricSection:
    """Metrics of training and of evaluation; the first of Eval chooses the best model."""

    Train: Annotated[list[Spec] | None, Many(METRICS)] = None
    Eval: Annotated[list[Spec] | None, Many(METRICS)] = None

    def __post_init__(self) -> None:
        for spec in self.Train or ():
            if getattr(METRICS.entry(spec.name).builder, "keeps_scores", False):
                expected = "expected metrics that are sums over samples"
                received = f"received {spec.name}, which keeps the scores of a whole epoch"
                raise ArgumentError("Train", f"{expected}, {received}: name it in Metric.Eval")


@dataclass
class ReaderOptions:
    """How batches are read.

    Attributes:
        num_workers: reading processes; 0 reads in the main process.
        timeout: (ppcls) seconds without a batch after which the run ends, naming the picture.
        decode: (ppcls) ``fast`` decodes of a JPEG only what a random crop keeps, a large one at a
            fraction of its size; ``exact`` all of it. ``auto`` is fast in training; evaluation is
            always exact.
    """

    num_workers: Annotated[int, Field(ge=0)] = 2
    timeout: Annotated[float, Field(gt=0)] = 300.0
    decode: Literal["auto", "fast", "exact"] = "auto"


# Keys beside any data set's own arguments: which of its samples are used (ppcls).
PART_KEYS = (
    Argument("subset", Annotated[float, Field(gt=0, le=1)] | None, None),  # this part of each class
    Argument("few_shot", Positive | None, None),  # so many samples of each class
    Argument("fold", str | None, None),  # "2/5": the second of five folds is evaluated
)
DATASET_KEYS = (
    # What happens to a batch of training on the device, behind the normalisation.
    Argument("batch_transform_ops", Annotated[list[Spec] | None, Many(BATCH_TRANSFORMS)], None),
    # Views of each picture, for JSDLoss: the first without AugMix, the others with (ppcls).
    Argument("views", Positive, 1),
    *PART_KEYS,
)
EVAL_DATASET_KEYS = (
    Argument("batch_transform_ops", Annotated[None, "only batches of training are mixed"], None),
    Argument("views", Annotated[None, "only training sees a picture several times"], None),
    *PART_KEYS,
)


@dataclass
class ReaderSection:
    """One reader: what is read, in which order, by how many processes."""

    dataset: Annotated[Spec, One(DATASETS, also=DATASET_KEYS)]
    sampler: Annotated[Spec, One(SAMPLERS)]
    loader: ReaderOptions = field(default_factory=ReaderOptions)


@dataclass
class EvalReaderSection(ReaderSection):
    """The reader of evaluation, which takes pictures as they are."""

    dataset: Annotated[Spec, One(DATASETS, also=EVAL_DATASET_KEYS)]


@dataclass
class DataLoaderSection:
    """The readers of training and of evaluation."""

    Train: ReaderSection | None = None
    Eval: EvalReaderSection | None = None


@dataclass
class AMPSection:
    """Mixed precision, on a GPU.

    Attributes:
        use_amp: whether the section counts.
        level: ``O1`` runs chosen operations in 16 bits, ``O2`` nearly all, with 16-bit weights.
        dtype: (ppcls) ``float16`` if not given; what is given is never replaced by float32.
        scale_loss: factor of the loss in float16; the start of dynamic scaling.
        use_dynamic_loss_scaling: lower the factor where gradients overflow, raise it in between;
            by default if ``scale_loss`` is not given.
        custom_white_list, custom_black_list: (ppcls) operations to run in 16, or in 32 bits, too.
        use_fp16_test: evaluate in 16 bits as well; level ``O2`` always does.
        use_promote: whether an operation with any input of 32 bits runs in 32 bits.
    """

    use_amp: bool = True
    level: Literal["O1", "O2"] = "O1"
    dtype: Literal["float16", "bfloat16"] | None = None
    scale_loss: Annotated[float, Field(gt=0)] | None = None
    use_dynamic_loss_scaling: bool | None = None
    custom_white_list: list[str] | None = None
    custom_black_list: list[str] | None = None
    use_fp16_test: bool = False
    use_promote: bool = False

    def __post_init__(self) -> None:
        scales = self.scale_loss is not None or self.use_dynamic_loss_scaling
        if self.dtype == "bfloat16" and scales:
            key = "scale_loss" if self.scale_loss is not None else "use_dynamic_loss_scaling"
            raise ArgumentError(key, "expected none: bfloat16 has the range of float32")
        if both := {*(self.custom_white_list or ())} & {*(self.custom_black_list or ())}:
            message = f"expected none of custom_white_list, received {', '.join(sorted(both))}"
            raise ArgumentError("custom_black_list", message)

    @property
    def dtype_used(self) -> str:
        """What operations run in."""
        return self.dtype or "float16"


@dataclass
class FinetuneSection:
    """How a network that has weights already learns something new (ppcls).

    Attributes:
        freeze_until: the layers up to this one and including it stay as they are: a layer's name
            (``stages.3``, or ``features.10`` as torchvision calls it), a stage counted from 1
            (``stage3``), so many stages (``3``), or ``head``: everything but the classifier.
        unfreeze_epoch: they learn from the start of this epoch on; null for never.
        backbone_lr_ratio: factor of the learning rate of everything but the classifier.
        head_lr_ratio: factor of the learning rate of the classifier.
    """

    freeze_until: str | Positive | None = None
    unfreeze_epoch: Annotated[int, Field(ge=2)] | None = None
    backbone_lr_ratio: Annotated[float, Field(gt=0)] = 1.0
    head_lr_ratio: Annotated[float, Field(gt=0)] = 1.0

    def __post_init__(self) -> None:
        if self.unfreeze_epoch is not None and self.freeze_until is None:
            message = "expected null without freeze_until, received "
            raise ArgumentError("unfreeze_epoch", f"{message}{self.unfreeze_epoch}")


@dataclass
class InferSection:
    """Prediction.

    Attributes:
        infer_imgs: a picture, or a folder of pictures.
        batch_size: pictures a batch.
        transforms: as ``transform_ops`` of a data set.
        PostProcess: turns logits into answers.
        model_dir: (ppcls) an exported folder to predict with, instead of a configuration.
    """

    infer_imgs: str | None = None
    batch_size: Positive = 10
    transforms: Annotated[list[Spec] | None, Many(TRANSFORMS)] = None
    PostProcess: Annotated[Spec | None, One(POSTPROCESSES)] = None
    model_dir: str | None = None


ARCH_KEYS = (
    Argument("pretrained", bool | str | None, False),  # True, or a path: weights to start from
)
# Beside the arguments of a network or of a group: batch statistics of all processes together.
SYNC_KEYS = (Argument("use_sync_bn", bool, False),)

# Beside each network's own arguments in ``Arch.models`` of a ``DistillationModel``.
NETWORK_KEYS = (
    Argument("class_num", Annotated[int | None, Repeats("Arch.class_num")], None),
    *ARCH_KEYS,
    Argument("return_patterns", list[str] | None, None),  # layers whose outputs a loss wants
)


@dataclass
class FixResSection:
    """Fine-tuning to another size of pictures (ppcls), FixRes, arXiv:1906.06423, section 4.2.

    With ``Finetune: {freeze_until: head}``, which leaves only the classifier to train.

    Attributes:
        batch_norm: the normalisations that adapt their statistics nevertheless: the ``last`` one,
            before the pooling, as the authors do, or ``all``.
    """

    batch_norm: Literal["last", "all"] = "last"


@dataclass
class ConfigSchema:
    """A whole configuration. What a command needs beyond ``Arch`` it asks for itself."""

    Arch: Annotated[Spec, One(BACKBONES, also=ARCH_KEYS, instead=NETWORK_GROUPS, always=SYNC_KEYS)]
    Global: GlobalSection = field(default_factory=GlobalSection)
    Loss: LossSection | None = None
    Optimizer: Annotated[Spec | None, One(OPTIMIZERS)] = None
    DataLoader: DataLoaderSection | None = None
    AMP: AMPSection | None = None
    EMA: EMASection | None = None
    # Another average of the weights (ppcls), scored and saved as that of EMA.
    Average: Annotated[Spec | None, One(AVERAGES)] = None
    Finetune: FinetuneSection | None = None
    Infer: InferSection | None = None
    Metric: MetricSection | None = None
    Progressive: ProgressiveSection | None = None
    FixRes: FixResSection | None = None


# Keys of published configurations without a meaning here -> why. Shell patterns of dotted paths.
NO_MEANING = {
    "Global.use_dali": "the reader is ppcls's own",
    "Global.log_ranks": "the first process logs",
    "Global.print_mem_info": "memory is not logged",
    "Global.uniform_output_enabled": "every checkpoint is a folder already",
    "Global.class_num": "Arch.class_num is what counts",
    "Global.use_multilabel": "data set, losses, metrics and PostProcess say so themselves",
    "DataLoader.*.loader.use_shared_memory": "batches always travel through shared memory",
    "Arch.use_ssld": "weights are chosen by Arch.pretrained",
    "Arch.models.*.use_ssld": "weights are chosen by pretrained",
    "Optimizer.lr.last_epoch": "the epoch comes from the checkpoint",
}

# Keys that published files give, and that would change the result -> the only value admitted.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "Global.iter_per_epoch": (None,),
    "Infer.infer_list": (None,),
    "Infer.save_dir": (None,),
    "Global.eval_mode": ("classification",),
}
