"""The sections of a configuration: every key, its type, its range, its default and its meaning.

The key names are PaddleClas's, so that its published files are read; keys of ours are marked
``ppcls``. Components (``Arch``, losses, transforms, ...) document their arguments where they are
defined. ``NO_MEANING`` and ``NOT_YET`` at the end list what published files hold beyond that.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ppcls.errors import ArgumentError
from ppcls.registry import (
    BACKBONES,
    BATCH_TRANSFORMS,
    DATASETS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    POSTPROCESSES,
    SAMPLERS,
    TRANSFORMS,
    Argument,
    Many,
    One,
    Spec,
)

Positive = Annotated[int, Field(ge=1)]


def _on_or_off(value: object) -> object:
    """Undoes what YAML makes of a bare ``on`` or ``off``."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


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
        print_batch_step: iterations between log lines.
        use_visualdl: write curves for VisualDL to ``vdl/``.
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
    print_batch_step: Positive = 10
    use_visualdl: bool = False
    image_shape: list[Positive] = field(default_factory=lambda: [3, 224, 224])
    save_inference_dir: str = "./inference"

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or self.image_shape[0] != 3:
            message = f"expected [3, height, width], received {self.image_shape}"
            raise ArgumentError("image_shape", message)


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
    *PART_KEYS,
)
EVAL_DATASET_KEYS = (
    Argument("batch_transform_ops", Annotated[None, "only batches of training are mixed"], None),
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
    """Mixed precision. Not used yet: training is in float32, and a warning says so."""

    use_amp: bool = True
    use_fp16_test: bool = False
    scale_loss: Annotated[float, Field(gt=0)] = 1.0
    use_dynamic_loss_scaling: bool = False
    level: Literal["O1", "O2"] = "O1"
    use_promote: bool = False


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


@dataclass
class ConfigSchema:
    """A whole configuration. What a command needs beyond ``Arch`` it asks for itself."""

    Arch: Annotated[Spec, One(BACKBONES, also=ARCH_KEYS)]
    Global: GlobalSection = field(default_factory=GlobalSection)
    Loss: LossSection | None = None
    Optimizer: Annotated[Spec | None, One(OPTIMIZERS)] = None
    DataLoader: DataLoaderSection | None = None
    AMP: AMPSection | None = None
    Infer: InferSection | None = None
    Metric: MetricSection | None = None


# Keys of published configurations without a meaning here -> why. Shell patterns of dotted paths.
NO_MEANING = {
    "Global.to_static": "the network is compiled when it is exported, not for training",
    "Global.use_dali": "the reader is ppcls's own",
    "Global.log_ranks": "the first process logs",
    "Global.print_mem_info": "memory is not logged",
    "Global.uniform_output_enabled": "every checkpoint is a folder already",
    "Global.class_num": "Arch.class_num is what counts",
    "DataLoader.*.loader.use_shared_memory": "batches always travel through shared memory",
    "Arch.use_ssld": "weights are chosen by Arch.pretrained",
    "Optimizer.lr.last_epoch": "the epoch comes from the checkpoint",
}

# Keys that published files give, and that would change the result -> the only value admitted.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "EMA": (None,),
    "Global.update_freq": (1,),
    "Global.iter_per_epoch": (None,),
    "Global.use_multilabel": (False,),
    "Infer.infer_list": (None,),
    "Infer.save_dir": (None,),
    "Global.train_mode": (None,),
    "Global.eval_mode": ("classification",),
    "Arch.use_sync_bn": (False,),
}
