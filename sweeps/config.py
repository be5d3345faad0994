"""The configuration: every field, its type and its default. A section's fields stand with the thing they configure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from methods.base import MethodConfig, QueueConfig, TeacherConfig
from methods.decoder import DecoderConfig
from methods.encoder import EncoderConfig
from methods.heads import HeadConfig
from methods.masking import MaskingConfig
from methods.trainer import TrainConfig
from protocols.distill import DistillConfig
from protocols.embedding import EmbeddingConfig
from protocols.finetune import FinetuneConfig
from protocols.fusion import FusionConfig
from protocols.linear import LinearConfig
from protocols.linear_fast import ProbeConfig
from protocols.retrieval import RetrievalConfig
from protocols.robustness import RobustnessConfig
from protocols.semi import SemiConfig
from skeletons.augment import AugmentConfig
from skeletons.sampling import ViewConfig
from skeletons.sources import DataConfig

# Fields of Config that say how a command runs, and nothing of what it makes.
OF_THE_COMMAND = ("cells", "launcher", "launch", "storage", "workers", "retry", "page", "dry")


@dataclass
class ProtocolConfig:
    """How encoders are judged.

    Attributes:
        names: protocols to run: linear_fast, linear (:mamp, :slim, :amr for a paper's recipe), finetune, semi:SHARE,
            retrieval, cluster, distill, robustness, embedding, transfer:DATA (frozen and fine-tuned on other data), and
            fusion (of streams, each trained apart).
        targets: data that a plain `transfer` goes to, NAME or NAME@SPLIT.
        pooling: mean, cls+mean, native (the method's own), or both: mean for all, and native beside it.
        probe: the fast linear probe's settings.
        linear: the slow one's, where they are not its recipe's.
        distill: how a small student is trained.
        finetune: how a copy of the encoder is trained with labels.
        semi: subsets of the labels it is given.
        retrieval: what is asked of the nearest training clips.
        robustness: how strong each corruption of test clips is.
        embedding: the map and the strips of neighbours.
        fusion: how the scores of streams are added.
    """

    names: list[str] = field(default_factory=lambda: ["linear_fast", "retrieval"])
    targets: list[str] = field(default_factory=list)
    pooling: str = "native"
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    semi: SemiConfig = field(default_factory=SemiConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)


@dataclass
class AblationConfig:
    """A table to fill.

    Attributes:
        name: of the ablation; rows of reports/published/ablations.csv with this name stand beside it.
        title, source: what the table is, and where it comes from.
        note: what a reader must know, e.g. the expected time.
        base: overrides of every cell.
        at: scale -> overrides of every cell there, below the base.
        cells: cell -> overrides that make it, on top of the base.
        differs: cell -> the same in words, for the table.
        reference: the cell that the others are compared with.
        floors: add the untrained encoder and raw coordinates.
        show: protocol -> its further metrics that the table has a column for, beside its headline.
    """

    name: str = ""
    title: str = ""
    source: str = ""
    note: str = ""
    base: list[str] = field(default_factory=list)
    at: dict[str, list[str]] = field(default_factory=dict)
    cells: dict[str, list[str]] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    floors: bool = True
    show: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class LaunchConfig:
    """What a worker elsewhere gets (`launcher=slurm` or `ray`), and how patient the command is with workers.

    Attributes:
        cpus: cores of each worker; 0 means one for each thread of each of a run's ranks.
        gpus: of each worker; with ranks, at least as many.
        memory: gigabytes of each worker; 0 leaves it to the cluster.
        hours: time limit of a Slurm job. A run that it cuts off goes on from its checkpoint in the next job.
        partition, account: of Slurm; empty leaves it to the cluster.
        options: further options of sbatch, e.g. `launch.options={constraint: a100}`.
        executor: slurm, or local: submitit's stand-in, on this machine, for trying out.
        address: of the Ray cluster; auto finds the one that this machine is part of.
        lost: how often a run may lose its worker without getting any further before it counts as failed.
        grace: seconds without a sign of life after which a worker is taken for dead (`storage=postgresql` only).
    """

    cpus: int = 0
    gpus: int = 0
    memory: float = 0.0
    hours: float = 24.0
    partition: str = ""
    account: str = ""
    options: dict[str, str] = field(default_factory=dict)
    executor: str = "slurm"
    address: str = "auto"
    lost: int = 3
    grace: int = 60


@dataclass
class Config:
    """Everything that can be set.

    Attributes:
        encoder: file of an encoder to judge, instead of training one: one that SkelBench wrote, or SLiM's release.
        tuned: file of settings that sweeps/tune.py found; those on the command line win over them.
        setting, scale: names of the chosen groups, for the record.
        budget: the cost that a table's cells share: clips, flops or seconds (see sweeps/budget.py).
        cells: of the ablation; empty means all of them. The floors stay.
        seeds: one run of each cell for each seed.
        splits: splits to run; empty means `data.split` alone, `[folds]` every fold of the data.
        device: auto, cpu, cuda or cuda:N.
        threads: of each run; 1 and 2 threads differ in the last bits, so this is part of a run's identity.
        ranks: processes that share each training's batches (see sweeps/ranks.py); `train.batch` is that of all of them.
        workers: processes (elsewhere: jobs); 0 means as many as the machine's cores allow with so many threads (and
            ranks) each, or one for each GPU.
        launcher: where workers run: local (this machine), slurm or ray (see `launch`).
        launch: what a worker elsewhere gets.
        storage: where the queue lies: journal (a file in `runs`), or postgresql://USER@HOST/DATABASE.
        retry: failed: run again what failed before.
        runs: folder of all results.
        records: files (in `runs`, which all workers see), or mlflow (through the tracking server: no shared folder).
        page: end by making the whole report, not the table alone.
        dry: print the plan and stop.
    """

    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    backbone: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    ablation: AblationConfig = field(default_factory=AblationConfig)
    encoder: str = ""
    tuned: str = ""
    setting: str = "paper"
    scale: str = "demo"
    budget: str = "clips"
    cells: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    splits: list[str] = field(default_factory=list)
    device: str = "auto"
    threads: int = 1
    ranks: int = 1
    workers: int = 0
    launcher: str = "local"
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    storage: str = "journal"
    retry: str = ""
    runs: str = "runs"
    records: str = "files"
    page: bool = True
    dry: bool = False


def select(config: Any, path: str) -> Any:
    """The value at a dotted path of nested dataclasses."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def differing(value: Any, default: Any) -> Any:
    """`value` as plain data, without the fields of dataclasses that equal their defaults."""
    if is_dataclass(value) and not isinstance(value, type):
        base = default if type(default) is type(value) else type(value)()
        return {
            name: differing(getattr(value, name), getattr(base, name))
            for name in value.__dataclass_fields__
            if getattr(value, name) != getattr(base, name)
        }
    if isinstance(value, list | tuple):
        return [differing(v, None) if is_dataclass(v) else v for v in value]
    return value


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted paths: `train.batch` -> 32."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
