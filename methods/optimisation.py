"""How weights move: settings, lengths and rates of a run, groups of parameters, clipping.

Groups come from what a method and its encoder say of themselves (`Method.last_layers`, `Method.sections`,
`Encoder.below_output`, `Encoder.embeds_patches`); no method is named here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from methods.base import Method
from methods.encoder import Encoder
from skeletons.errors import BadInput, check_choices


@dataclass
class TrainConfig:
    """How a method is trained.

    Attributes:
        length: of the run: "187500 steps", "400 epochs" or "38000 clips".
        batch: clips a step.
        lr, min_lr: largest and last learning rate (linear warm-up, then the schedule).
        lr_factor: multiplies both; scales with narrower encoders raise it (see conf/scale).
        warmup: "20 epochs", "2500 steps" or a share of the run, "0.1 run".
        weight_decay, weight_decay_end: of weights, not of biases and norms; a cosine from one to the other.
        beta1, beta2: of AdamW and Adam; beta1 is SGD's momentum.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
        precision: fp32, or bf16 for autocast.
        compile: pass the loss through torch.compile.
        log_every: steps between lines of metrics.jsonl.
        evaluations: how many times, evenly spread, the collapse watch and the evaluators run.
        checkpoint_seconds: time between checkpoints.
        optimizer: adamw, adam (weight decay as an L2 term of the gradient) or sgd (L2 too, momentum beta1).
        decays: weights, or all for biases and norms too (a plain `torch.optim.SGD` or `Adam` over all parameters).
        schedule: cosine, or step: times 0.1 at each of `drops`, and `min_lr` is not used.
        drops: shares of the run where the rate of `schedule=step` falls, e.g. 250 of 300 epochs: 0.8333.
        lr_rule: none, or sqrt1024: `lr` (not `min_lr`) is for 1,024 clips and grows with the batch's square root.
        layer_decay: the rate falls by this factor from each of the encoder's layers to the one below.
        patch_embed_rate: multiplies the rate of the encoder's patch embedding.
        encoder_rate: multiplies the rate of all of the encoder, e.g. below a new head's.
        freeze_last: for so long ("1250 steps", "0.1 run") a method's last layers (prototypes) get no update.
        clip_per: all parameters' gradient is clipped as one, or each module's (encoder, each head) on its own.
    """

    length: str = "187500 steps"
    batch: int = 768
    lr: float = 2e-4
    min_lr: float = 1e-6
    lr_factor: float = 1.0
    warmup: str = "25000 steps"
    weight_decay: float = 0.04
    weight_decay_end: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 3.0
    precision: str = "fp32"
    compile: bool = False
    log_every: int = 10
    evaluations: int = 8
    checkpoint_seconds: float = 30.0
    optimizer: str = "adamw"
    decays: str = "weights"
    schedule: str = "cosine"
    drops: list[float] = field(default_factory=list)
    lr_rule: str = "none"
    layer_decay: float = 1.0
    patch_embed_rate: float = 1.0
    encoder_rate: float = 1.0
    freeze_last: str = "0 steps"
    clip_per: str = "all"

    def check(self) -> None:
        """Raises BadInput for values that cannot be trained with."""
        check_choices(
            "train",
            self,
            precision=("fp32", "bf16"),
            optimizer=("adamw", "adam", "sgd"),
            decays=("weights", "all"),
            schedule=("cosine", "step"),
            lr_rule=("none", "sqrt1024"),
            clip_per=("all", "module"),
        )
        for name in ("batch", "lr", "log_every", "layer_decay", "patch_embed_rate", "encoder_rate"):
            if getattr(self, name) <= 0:
                raise BadInput(f"train.{name}={getattr(self, name)} must be positive")
        if self.drops and self.schedule != "step":
            raise BadInput(f"train.drops={list(self.drops)} needs train.schedule=step")
        if not all(0 < d < 1 for d in self.drops):
            raise BadInput(f"train.drops={list(self.drops)} must be shares of the run, between 0 and 1")


def steps_in(length: str, batch: int, clips: int, run: int | None = None) -> int:
    """Steps that a length such as "20 epochs" means.

    Args:
        batch: clips a step.
        clips: clips in the training split.
        run: steps of the whole run, for shares ("0.1 run").

    Raises:
        BadInput: not a number and one of steps, epochs, clips, run.
    """
    number, _, unit = length.strip().partition(" ")
    try:
        amount = float(number)
    except ValueError:
        amount = -1.0
    each = {"steps": 1.0, "epochs": clips / batch, "clips": 1 / batch}
    if run is not None:
        each["run"] = float(run)
    if not 0 <= amount < math.inf or unit not in each:
        raise BadInput(f"length {length!r}: write a number and one of {', '.join(each)}, e.g. '400 epochs'")
    return round(amount * each[unit])


def rate(step: int, steps: int, warmup: int, top: float, last: float) -> float:
    """Linear warm-up to `top`, then half a cosine to `last`."""
    if step < warmup:
        return top * (step + 1) / warmup
    return last + (top - last) * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def learning_rate(config: TrainConfig, step: int, steps: int, warmup: int) -> float:
    """The rate at `step`, before a group's own share of it."""
    top = config.lr * (math.sqrt(config.batch / 1024) if config.lr_rule == "sqrt1024" else 1.0)
    if config.schedule == "cosine" or step < warmup:
        return rate(step, steps, warmup, top, config.min_lr) * config.lr_factor
    fallen = sum(step >= round(drop * steps) for drop in config.drops)
    return top * 0.1**fallen * config.lr_factor


def _shares(module: nn.Module, config: TrainConfig) -> dict[int, float]:
    """Share of the learning rate of each encoder's parameters, by id; all others have 1."""
    found: dict[int, float] = {}
    for encoder in module.modules():
        if isinstance(encoder, Encoder):
            for name, parameter in encoder.named_parameters():
                share = config.encoder_rate * config.layer_decay ** encoder.below_output(name)
                found[id(parameter)] = share * (config.patch_embed_rate if encoder.embeds_patches(name) else 1.0)
    return found


def optimizer_for(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser; weights and embeddings decay, biases and norms do not unless `decays` says so.

    Its first two groups are what decays and what does not, at the full rate; others follow where parts of the encoder
    have a share of it, or last layers are frozen for a while.
    """
    share = _shares(module, config)
    freezes = isinstance(module, Method) and float(config.freeze_last.split()[0]) > 0
    last = {id(p) for p in module.last_layers()} if isinstance(module, Method) and freezes else set()
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {(True, 1.0, False): [], (False, 1.0, False): []}
    for p in module.parameters():
        if p.requires_grad:
            key = (p.ndim > 1 or config.decays == "all", share.get(id(p), 1.0), id(p) in last)
            groups.setdefault(key, []).append(p)
    made = []
    for (decays, part, frozen), parameters in groups.items():
        group = {"params": parameters, "decays": decays}
        group |= {} if decays else {"weight_decay": 0.0}
        group |= {} if part == 1.0 else {"share": part}
        group |= {"last": True} if frozen else {}
        made.append(group)
    if config.optimizer == "sgd":
        return torch.optim.SGD(made, lr=config.lr, momentum=config.beta1, weight_decay=config.weight_decay, fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    betas = (config.beta1, config.beta2)
    return kind(made, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)


def update_groups(
    optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int, warmup: int, frozen: int
) -> float:
    """Set every group's rate and weight decay for `step`; returns the full rate.

    A frozen layer has rate 0, as in DINOv2: its gradient still counts in the clipping and the optimiser's averages.

    Args:
        frozen: steps for which last layers are frozen.
    """
    lr = learning_rate(config, step, steps, warmup)
    decay = rate(step, steps, 0, config.weight_decay, config.weight_decay_end)
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if group.get("last") and step < frozen else lr * group.get("share", 1.0)
        if group["decays"]:
            group["weight_decay"] = decay
    return lr


def clip_gradients(method: Method, optimizer: torch.optim.Optimizer, config: TrainConfig) -> Tensor:
    """Clip the gradients of what the optimiser moves; returns the norm of all of them before that."""
    limit = config.clip_norm or math.inf
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if config.clip_per == "all":
        return nn.utils.clip_grad_norm_(trained, limit)
    left = {id(p): p for p in trained}
    clipped = [[left.pop(id(p)) for p in section.parameters() if id(p) in left] for section in method.sections()]
    clipped.append(list(left.values()))
    norms = [nn.utils.clip_grad_norm_(own, limit).to(trained[0].device) for own in clipped if own]
    return torch.stack(norms).norm()
