"""Distillation of a trained encoder into a small student.

The teacher is frozen: an encoder and, where there are labels, a linear classifier on its pooled features. The student
is a smaller encoder with a classifier of its own. On random crops, augmented lightly (as the linear probe's are), with
s and t the logits of student and teacher for the same crop (Hinton et al., 2015):

    L = alpha CE(s, y) + (1 - alpha) T^2 KL(softmax(t / T) || softmax(s / T))

Without labels the student follows features: L = 1 - cos(W f_student, f_teacher - mean), W a linear map to the teacher's
width, the mean that of the teacher's features of the training clips. W is thrown away; the other protocols judge the
student.

ASMa (TMLR 2026) publishes the outcome, 91.4 % fewer parameters and inference 3 times faster on an edge device, but no
temperature, no alpha and no student. ASSUMPTION: T = 4, alpha = 0.5; a single encoder of the teacher's kind and depth
whose width is halved until at least 91.4 % of the parameters are gone; AdamW with warm-up and cosine. Parameters are
those of the encoders: the projectors of pretraining are gone by then. (A single ST-GCN of width 256 halved twice loses
91.5 % of its parameters, 821,380 to 70,096, which may be how the published figure came about.)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from methods.encoder import Encoder, EncoderConfig, make_encoder
from methods.flops import counted
from methods.persons import pooled
from methods.trainer import batch_clips, rate
from protocols.features import extract
from protocols.recipes import RECIPES
from skeletons.augment import Augmentation
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, Sampler, ViewConfig

VERSION = 1
PUBLISHED_REDUCTION = 91.4
"""Percent of the teacher's parameters that ASMa's student does without."""


@dataclass
class DistillConfig:
    """How a student is trained.

    Attributes:
        width, depth: of the student; 0 means, for the depth, the teacher's, for the width, the teacher's halved until
            the student has at least 91.4 % fewer parameters.
        kind: of the student's encoder; empty means the teacher's (of a pair: its members').
        temperature, alpha: T, and the weight of the labels' cross-entropy.
        steps, batch: of training.
        warmup: steps of it.
        lr, weight_decay: of AdamW.
        timings: single clips that are timed for the latency.
    """

    width: int = 0
    depth: int = 0
    kind: str = ""
    temperature: float = 4.0
    alpha: float = 0.5
    steps: int = 2000
    batch: int = 64
    warmup: int = 100
    lr: float = 1e-3
    weight_decay: float = 0.05
    timings: int = 30

    def check(self) -> None:
        """Raises BadInput for values that cannot be trained with."""
        if self.temperature <= 0:
            raise BadInput(f"distill.temperature={self.temperature} must be positive")
        if not 0 <= self.alpha <= 1:
            raise BadInput(f"distill.alpha={self.alpha} must be in [0, 1]")
        for name in ("steps", "batch", "timings"):
            if getattr(self, name) < 1:
                raise BadInput(f"distill.{name}={getattr(self, name)} must be at least 1")


def single_kind(teacher: EncoderConfig) -> str:
    """The teacher's kind of encoder; of a pair, its members'."""
    return teacher.members if teacher.kind in ("pair", "aligned_pair") else teacher.kind


def small_student(teacher: Encoder, config: DistillConfig) -> Encoder:
    """An untrained student for the teacher's body and frames: a single encoder, narrower in all its widths.

    Raises:
        BadInput: no width leaves so few parameters.
    """
    c, most = teacher.config, (1 - PUBLISHED_REDUCTION / 100) * parameters(teacher)
    width = config.width or c.width
    while True:
        if not config.width:
            width //= 2
        if width < 2:
            raise BadInput(f"a teacher of {parameters(teacher)} parameters is too small to distil; set distill.width")
        small = replace(
            c,
            width=width,
            depth=config.depth or c.depth,
            heads=max(1, c.heads * width // c.width),
            mlp_hidden=c.mlp_hidden * width // c.width,
            kind=config.kind or single_kind(c),
            members=EncoderConfig.members,
        )
        student = make_encoder(small, teacher.topology, teacher.frames)
        if config.width or parameters(student) <= most:
            return student


def distillation_loss(
    student: Float[Tensor, "clip class"],
    teacher: Float[Tensor, "clip class"],
    labels: Int[Tensor, " clip"],
    temperature: float,
    alpha: float,
) -> Float[Tensor, ""]:
    """alpha CE + (1 - alpha) T^2 KL(teacher || student at temperature T), means over clips."""
    s, t = ((x / temperature).log_softmax(1) for x in (student, teacher))
    kl = (t.exp() * (t - s)).sum(1).mean()
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * temperature**2 * kl


def feature_loss(student: Float[Tensor, "clip width"], teacher: Float[Tensor, "clip width"]) -> Float[Tensor, ""]:
    """1 - cosine, mean over clips."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def distil(
    teacher: Encoder,
    student: Encoder,
    store: ClipTensors,
    rows: Int[Tensor, " clip"],
    views: ViewConfig,
    config: DistillConfig,
    seed: int,
    head: nn.Linear | None = None,
    classifier: nn.Linear | None = None,
) -> Iterator[tuple[str, float]]:
    """Train `student`, and `classifier` where there is one, in place; the teacher and its head are not changed.

    Args:
        teacher, student: of the store's topology, on its device.
        rows: training clips of the store.
        views: size of a crop.
        head: the teacher's classifier on its pooled features (mean of patch tokens), e.g. a linear probe; None
            distils features, and reads no label.
        classifier: the student's, trained with `head`.

    Yields:
        (name, value): the last loss, then parameters, FLOPs and latency of both and their ratios, see `sizes`.

    Raises:
        BadInput: settings that cannot be used, or one classifier without the other.
    """
    config.check()
    if (head is None) != (classifier is None):
        raise BadInput("distillation of logits needs a classifier of the teacher and one of the student, or neither")
    modes = teacher.training, student.training
    try:
        loss = _train(teacher.eval(), student.train(), store, rows, views, config, seed, head, classifier)
    finally:
        teacher.train(modes[0])
        student.train(modes[1])
    yield "loss", loss
    yield from sizes(teacher, student, store, rows, views, config.timings)


def _train(
    teacher: Encoder,
    student: Encoder,
    store: ClipTensors,
    rows: Int[Tensor, " clip"],
    views: ViewConfig,
    config: DistillConfig,
    seed: int,
    head: nn.Linear | None,
    classifier: nn.Linear | None,
) -> float:
    """The loop; returns the last loss."""
    mean, follower = None, classifier
    if follower is None:
        mean = extract(teacher, store, rows, views, "mean").mean(0).to(store.device)
        follower = nn.Linear(student.width, teacher.width).to(store.device)
        with torch.no_grad():
            start = Draws(seed, "follower", device=store.device).normal(teacher.width, student.width)
            follower.weight.copy_(start / student.width**0.5)
            follower.bias.zero_()
    trained = [*student.parameters(), *follower.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    sampler, loss = _sampler(store, views, teacher.frames), torch.zeros(())
    for step in range(config.steps):
        torch.manual_seed(Draws(seed, step, "torch").torch_seed())  # dropout, as the trainer does
        for group in optimizer.param_groups:
            group["lr"] = rate(step, config.steps, min(config.warmup, config.steps - 1), config.lr, 0.0)
        clips = rows.to(store.device)[batch_clips(step, config.batch, len(rows), seed).to(store.device)]
        view = sampler(clips, Draws(seed, step, "distill", device=store.device))["clip"]
        found = follower(pooled(student, view, "mean"))
        with torch.no_grad():
            if mean is None and config.alpha == 1:
                target = found  # labels alone: the teacher need not be asked
            else:
                known = pooled(teacher, view, "mean")
                target = known - mean if mean is not None else head(known) if head is not None else known
        if mean is None:
            loss = distillation_loss(found, target, store.labels[clips], config.temperature, config.alpha)
        else:
            loss = feature_loss(found, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _sampler(store: ClipTensors, views: ViewConfig, frames: int) -> Sampler:
    """The views that MAMP's linear probe is trained on, whatever the teacher's pretraining saw."""
    recipe = RECIPES["mamp"]
    return Sampler(store, recipe.crops(views, frames), Augmentation(recipe.augment, store.topology))


def sizes(
    teacher: Encoder, student: Encoder, store: ClipTensors, rows: Int[Tensor, " clip"], views: ViewConfig, timings: int
) -> Iterator[tuple[str, float]]:
    """Parameters, FLOPs of one person and measured latency of one clip, of both encoders.

    Latency is the median over single clips, all their persons, pooled, on the store's device; the two take turns on
    each clip, after some that are not counted, so that a busy machine slows both.
    """
    both = {"teacher": teacher, "student": student}
    counts = {name: parameters(encoder) for name, encoder in both.items()}
    flops = {name: forward_flops(encoder) for name, encoder in both.items()}
    spent = latencies(list(both.values()), store, rows, views, timings)
    for name, seconds in zip(both, spent):
        yield f"{name}_parameters", float(counts[name])
        yield f"{name}_flops", float(flops[name])
        yield f"{name}_milliseconds", 1000 * seconds
    yield "parameter_reduction", 100 * (1 - counts["student"] / counts["teacher"])
    yield "published_parameter_reduction", PUBLISHED_REDUCTION
    yield "flops_ratio", flops["teacher"] / flops["student"]
    yield "speedup", spent[0] / spent[1]
    yield "published_speedup", 3.0


def parameters(encoder: nn.Module) -> int:
    """Numbers that training could change."""
    return sum(p.numel() for p in encoder.parameters())


def forward_flops(encoder: Encoder) -> int:
    """FLOPs of one person, counted on the meta device."""
    twin = make_encoder(encoder.config, encoder.topology, encoder.frames, encoder.mask_token is not None).to("meta")
    joints = torch.empty(1, encoder.frames, len(encoder.topology), 3, device="meta")
    return counted(lambda: twin(joints))


@torch.no_grad()
def latencies(
    encoders: list[Encoder], store: ClipTensors, rows: Int[Tensor, " clip"], views: ViewConfig, timings: int
) -> list[float]:
    """Median seconds of each encoder for one clip."""
    sampler = _sampler(store, views, encoders[0].frames)
    modes = [encoder.training for encoder in encoders]
    found: list[list[float]] = [[] for _ in encoders]
    for number in range(-2, timings):
        clip = rows[number % len(rows)][None].to(store.device)
        view = sampler(clip, Draws(0, "latency", number, device=store.device))["clip"]
        for encoder, seconds in zip(encoders, found):
            encoder.eval()
            _wait(store.device)
            began = time.perf_counter()
            pooled(encoder, view, "mean")
            _wait(store.device)
            if number >= 0:
                seconds.append(time.perf_counter() - began)
    for encoder, mode in zip(encoders, modes):
        encoder.train(mode)
    return [statistics.median(seconds) for seconds in found]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
