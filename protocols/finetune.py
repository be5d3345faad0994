"""Fine-tuning: a copy of the encoder and a new head, trained end to end with labels by the one trainer.

Two recipes, from the code that papers released. A setting that is None is the recipe's:

- `mamp` (main_finetune.py, util/lr_decay.py, script_finetune.sh): AdamW, betas 0.9, 0.999, weight decay 0.05 (none on
  biases and norms), rate 3e-4 (the script's; the yaml's 5e-4 is overridden by it) down to 1e-5 along a cosine after a
  warm-up of 5 of 100 epochs, 48 clips a step, rate times 0.8 for each layer below the output, drop path from 0 to 0.3
  over the blocks, label smoothing 0.1. Its own head is `head=mamp`; the default is `linear`, so that methods are
  compared on what the linear probe sees. It trains from scratch with `layer_decay=1`.
- `slim` (slim/eval/finetune.py; published for semi-supervised runs only): SGD, momentum 0.9, weight decay 1e-4, rate
  1e-3 for the head and 1e-5 for the encoder (after scaling to 256 clips a step) down to 0 along a cosine, 20,000 steps
  of 256, head `slim`, plain cross-entropy, weight decay on all parameters, views as for its probe
  (recipes.SLIM_AUGMENTATION). ASSUMPTION: no drop path.

Crops of [0.5, 1] of a clip, of at least 64 frames (`slim`: 16); for `mamp` turned by up to 0.3 rad about every axis
(feeder). Where the data declares chiral classes no view is mirrored. Nothing is chosen: settings are fixed, and the
headline is the last step. `best_test`, the best of some moments on the way, is what papers report; it is looked at and
used for nothing.

An encoder without blocks (ST-GCN) has no drop path and one rate for all layers; it keeps its own dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from methods.backbone import Block
from methods.classifier import HEADS, Classifier, make_head
from methods.encoder import Encoder, make_encoder
from methods.trainer import TrainConfig, TrainingFailed, steps_in, train
from protocols.base import Protocol, Result, Subject, accuracy
from protocols.recipes import SLIM_AUGMENTATION, SMALL_ROTATION
from skeletons.augment import Augmentation, AugmentConfig, for_labels
from skeletons.errors import BadInput, check_choices, unknown
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, Sampler, ViewConfig, centre_view
from skeletons.topology import Topology


@dataclass(frozen=True)
class Recipe:
    """How an encoder is fine-tuned, see `FinetuneConfig`; crops of at least `min_frames`, augmented by `augment`."""

    optimizer: str
    length: str
    warmup: str
    batch: int
    lr: float
    min_lr: float
    encoder_rate: float
    layer_decay: float
    weight_decay: float
    decays: str
    drop_path: float
    label_smoothing: float
    head: str
    min_frames: int = 64
    augment: AugmentConfig = field(default_factory=lambda: SMALL_ROTATION)

    def training(self, steps: int, lr_factor: float, evaluations: int) -> TrainConfig:
        """What the trainer is told."""
        shared = {f.name: getattr(self, f.name) for f in fields(self) if f.name in TrainConfig.__dataclass_fields__}
        return replace(
            TrainConfig(**shared),
            length=f"{steps} steps",
            lr_factor=lr_factor,
            weight_decay_end=self.weight_decay,
            clip_norm=0.0,
            log_every=steps,
            evaluations=evaluations,
        )


RECIPES = {
    "mamp": Recipe("adamw", "100 epochs", "0.05 run", 48, 3e-4, 1e-5, 1.0, 0.8, 0.05, "weights", 0.3, 0.1, "linear"),
    "slim": Recipe(
        "sgd", "20000 steps", "0 steps", 256, 1e-3, 0.0, 0.01, 1.0, 1e-4, "all", 0.0, 0.0, "slim", 16, SLIM_AUGMENTATION
    ),
}


@dataclass
class FinetuneConfig:
    """Settings of fine-tuning; None is the recipe's value (see the file's text).

    Attributes:
        recipe: mamp or slim.
        length: of a run: "100 epochs", "200 steps" or "6400 clips".
        least: fewest steps of a length in epochs: 100 epochs of 10 clips would be 21. ASSUMPTION: 780, the shortest
            run of MAMP's (100 epochs of 376 clips, 1 % of NTU-60 X-View), so that no published length changes.
        warmup: "5 epochs", "10 steps" or a share of the run, "0.05 run".
        batch: clips a step.
        lr, min_lr: largest and last rate.
        lr_factor: multiplies both; scales with narrower encoders raise it, as they do in pretraining.
        layer_decay: the rate falls by this factor from each layer to the one below.
        weight_decay: see the recipes.
        drop_path: largest rate of stochastic depth.
        label_smoothing: of the cross-entropy.
        head: linear, mamp or slim (see methods/classifier.py).
        crop_low: smallest share of a clip that a crop covers.
        angle: largest rotation about every axis, radians; of the recipe `mamp`.
        evaluations: moments, evenly spread, at which `best_test` looks; 0: at the end only.
    """

    recipe: str = "mamp"
    length: str | None = None
    least: int = 780
    warmup: str | None = None
    batch: int | None = None
    lr: float | None = None
    min_lr: float | None = None
    lr_factor: float = 1.0
    layer_decay: float | None = None
    weight_decay: float | None = None
    drop_path: float | None = None
    label_smoothing: float | None = None
    head: str | None = None
    crop_low: float = 0.5
    angle: float = 0.3
    evaluations: int = 10

    def filled(self) -> Recipe:
        """The recipe, with what is set here in place of its own values.

        Raises:
            BadInput: values that cannot be trained with.
        """
        if self.recipe not in RECIPES:
            raise unknown("protocol.finetune.recipe", self.recipe, RECIPES)
        names = [f.name for f in fields(Recipe) if getattr(self, f.name, None) is not None]
        found = replace(RECIPES[self.recipe], **{name: getattr(self, name) for name in names})
        self._check(found)
        return found

    def _check(self, recipe: Recipe) -> None:
        check_choices("protocol.finetune", recipe, head=HEADS)
        least = {"batch": 2 if recipe.head == "mamp" else 1, "evaluations": 0, "least": 0, "min_lr": 0}
        least |= {"weight_decay": 0, "angle": 0}
        for name, value in least.items():
            if getattr(recipe, name, getattr(self, name, 0)) < value:
                raise BadInput(f"protocol.finetune.{name} must be at least {value}")
        for name in ("lr", "layer_decay", "lr_factor", "crop_low"):
            if getattr(recipe, name, getattr(self, name, 0)) <= 0:
                raise BadInput(f"protocol.finetune.{name} must be positive")
        for name in ("drop_path", "label_smoothing"):
            if not 0 <= getattr(recipe, name) < 1:
                raise BadInput(f"protocol.finetune.{name}={getattr(recipe, name)} must be in [0, 1)")
        if self.crop_low > 1:
            raise BadInput(f"protocol.finetune.crop_low={self.crop_low} must be a share, at most 1")
        steps_in(recipe.warmup, recipe.batch, 1, self.steps(recipe, 1))

    def steps(self, recipe: Recipe, clips: int) -> int:
        """Steps of a run on so many training clips."""
        steps = max(1, steps_in(recipe.length, recipe.batch, clips))
        return max(steps, self.least) if recipe.length.split()[-1] == "epochs" else steps


def copied(encoder: Encoder, topology: Topology, drop_path: float) -> Encoder:
    """A trainable copy of an encoder for a body, with a rate of drop path of its own (where its kind has blocks)."""
    source = encoder if encoder.topology == topology else encoder.on(topology)
    config = replace(source.config, drop_path=drop_path)
    copy = make_encoder(config, topology, source.frames, masked=source.mask_token is not None)
    copy.load_state_dict(source.state_dict())
    return copy.to(next(source.parameters()).device)


@torch.no_grad()
def classify(
    model: Classifier, store: ClipTensors, rows: Int[Tensor, " clip"], views: ViewConfig, batch: int = 256
) -> Int[Tensor, " clip"]:
    """The class that the model gives the evaluation view of clips, on the CPU; its mode is put back."""
    training = model.training
    model.eval()
    parts = rows.to(store.device).split(batch)
    found = [model.logits(centre_view(store, part, views, model.encoder.frames)).argmax(1) for part in parts]
    model.train(training)
    return torch.cat(found).cpu()


@dataclass
class Tuned:
    """What fine-tuning gave.

    Attributes:
        predicted: class of each test clip after the last step.
        best_test: percent, the best of all moments looked at.
        steps: of the run.
        last: the trainer's last line.
        drops: the encoder has blocks that drop path skips.
    """

    predicted: Int[Tensor, " test"]
    best_test: float
    steps: int
    last: dict[str, float]
    drops: bool


def fine_tuned(subject: Subject, rows: np.ndarray, settings: FinetuneConfig, draw: int = 0) -> Tuned:
    """Fine-tune a copy of the subject's encoder on labelled training clips, and predict the test clips.

    Args:
        rows: int64, indices of the labelled clips; no other training clip is looked at.
        draw: of several; keys, with the subject's seed, everything random.

    Raises:
        TrainingFailed: the loss is not finite.
    """
    assert subject.encoder is not None
    recipe, store, truth = settings.filled(), subject.store, subject.labels[1]
    seed = Draws(subject.seed, "finetune", draw).torch_seed()
    torch.manual_seed(Draws(seed, "head").torch_seed())
    encoder = copied(subject.encoder, store.topology, recipe.drop_path)
    head = make_head(recipe.head, encoder, subject.classes)
    model = Classifier(encoder, head, recipe.label_smoothing).to(store.device)
    low, least = settings.crop_low, recipe.min_frames
    views = replace(subject.views, frames=encoder.frames, crop_low=low, crop_high=1.0, min_frames=least)
    augment = for_labels(replace(recipe.augment, limited_angle=settings.angle), bool(subject.data.chiral))
    augmentation = Augmentation(augment, store.topology)
    sampler = Sampler(store.take(torch.from_numpy(rows)), views, augmentation, labels=True)
    steps, test = settings.steps(recipe, len(rows)), torch.from_numpy(subject.part.test)
    seen: list[float] = []

    def watch(_: nn.Module, step: int) -> Iterator[tuple[str, float]]:
        if step < steps:
            seen.append(accuracy(classify(model, store, test, views), truth))
        yield from ()

    try:
        training = recipe.training(steps, settings.lr_factor, settings.evaluations)
        last = train(model, sampler, training, seed, evaluators=[watch])[-1]
    except TrainingFailed as error:
        raise TrainingFailed(f"fine-tuning ({error}, that is protocol.finetune.lr)") from error
    predicted = classify(model, store, test, views)
    drops = any(isinstance(module, Block) for module in encoder.modules())
    return Tuned(predicted, max(*seen, accuracy(predicted, truth), 0.0), steps, last, drops)


def in_words(settings: FinetuneConfig, tuned: Tuned) -> str:
    """The recipe, for a table's legend."""
    r = settings.filled()
    rate = f"rate {r.lr * settings.lr_factor:g}"
    if r.encoder_rate != 1:
        rate += f", the encoder's {r.lr * settings.lr_factor * r.encoder_rate:g}"
    told = [f"{r.optimizer} ({settings.recipe}'s recipe)", rate, f"{tuned.steps} steps of {r.batch}", f"head {r.head}"]
    told += [f"layer decay {r.layer_decay:g}"] if tuned.drops and r.layer_decay != 1 else []
    told += [f"drop path {r.drop_path:g}"] if tuned.drops and r.drop_path else []
    return ", ".join(told)


class Finetune(Protocol):
    """See the file's text."""

    name = "finetune"
    label = "fine-tuned"
    reads = ("finetune",)
    seeded = True
    raw = False
    pools = False

    def __init__(self, config: object, argument: str = ""):
        super().__init__(config, argument)
        self.settings: FinetuneConfig = self.config.finetune
        self.settings.filled()

    def __call__(self, subject: Subject) -> Result:
        tuned = fine_tuned(subject, subject.part.train, self.settings)
        metrics = {"top1": accuracy(tuned.predicted, subject.labels[1]), "best_test": tuned.best_test}
        details = {"steps": tuned.steps, "train_loss": tuned.last["loss"]}
        return Result(metrics, in_words(self.settings, tuned), tuned.predicted, details)
