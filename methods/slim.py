"""SLiM: decoder-free masked feature modelling with global-local contrast (Do et al., arXiv 2603.10648).

Section 3.2. A student f and a teacher f' (its exponential moving average) share one architecture: an encoder and two
prototype heads, one for the class token and one for patch tokens. Every clip gives two global views and local views cut
out of each global view's interval (appendix B).

- MFM (Eq. 4): the student sees a global view with tubes of tokens hidden; at each hidden token it predicts the
  teacher's assignment over prototypes for the same token of the unmasked view.
- GLCL (Eq. 6): the teacher's class token of an anchor (each global view in turn) is the target for the student's class
  tokens of the other global view and of the local views inside the anchor, half of which are masked too (section 3.3).
- KoLeo spreads the student's global class tokens (the released code; appendix A says local features).

L = MFM + lambda GLCL + 0.1 KoLeo. The paper writes Eqs. 4 and 6 as sums; here they are means (over a view's hidden
tokens, then views; over anchor-view pairs), as in the released code, for only then does lambda = 1 mean anything.
Teacher targets are balanced by Sinkhorn-Knopp. Where the paper is silent the released code's value stands: student
temperature 0.1, teacher 0.07, weight decay, clipping, the teacher as the encoder that is kept. The prototypes' gain
stays 1, where the release's only starts there.
ASSUMPTION: the global view that GLCL compares is not masked (Eq. 5); `masked_globals` takes the class token of the
masked view instead, as the released code does. The other flags of this file are the release's too; `slim_released`
sets them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from methods.base import Method, MethodConfig, Parts
from methods.distributed import denominator
from methods.encoder import Encoder, make_encoder
from methods.heads import PrototypeHead
from methods.losses import koleo
from methods.masking import MaskingConfig, strategy
from methods.masking.tokens import hidden_index
from methods.masking.views import ViewMasking
from methods.prototypes import prototype_cross_entropy
from methods.teacher import follow, teacher_of
from skeletons.errors import BadInput, unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class SlimConfig(MethodConfig):
    """SLiM's own fields.

    Attributes:
        mfm, glcl: use the loss at all.
        lambda_glcl, koleo: weights of GLCL and of KoLeo.
        student_temperature, teacher_temperature, sinkhorn: temperatures and iterations.
        masked_globals: GLCL compares masked global views (the released code).
        every_local: GLCL compares each anchor with the local views of both (the released code), not its own alone.
        mfm_views: views that MFM is averaged over: masked ones, or all, so that half of them masked count half (the
            released code).
        temperature_warmup: share of the run in which the teacher's temperature grows from `first_temperature`.
        first_temperature: see there.
    """

    name: str = "slim"
    pooling: str = "cls+mean"
    mfm: bool = True
    glcl: bool = True
    lambda_glcl: float = 1.0
    koleo: float = 0.1
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    sinkhorn: int = 3
    masked_globals: bool = False
    every_local: bool = False
    mfm_views: str = "masked"
    temperature_warmup: float = 0.0
    first_temperature: float = 0.04


class Branch(nn.Module):
    """Encoder and heads: what student and teacher each are."""

    def __init__(self, parts: Parts, masked: bool, mfm: bool, glcl: bool):
        super().__init__()
        self.encoder = make_encoder(parts.backbone, parts.topology, parts.views.frames, masked)
        width = parts.backbone.width
        self.cls_head = PrototypeHead(width, parts.heads) if glcl else None
        self.patch_head = PrototypeHead(width, parts.heads.for_patches()) if mfm else None


class Slim(Method):
    """See the module's text. The teacher is the encoder that is kept."""

    name = "slim"
    version = 2  # 2: prototypes start shorter, so they turn faster
    Config = SlimConfig
    accepts = frozenset({"none", "patches", "topology", "embeddings"})
    crops = 2
    local_views = True
    one_person = True
    reads = ("method", "backbone", "heads", "teacher", "views", "augment", "train")

    def __init__(self, parts: Parts):
        super().__init__()
        c: SlimConfig = parts.method
        self.config, self.topology = c, parts.topology
        self.momentum, self.steps = parts.teacher, max(1, parts.steps)
        names = self.strategies(parts.masking)
        m = parts.masking
        self.ratio = (m.range()[0] * m.global_probability, m.range()[1] * m.global_probability)  # of all global views
        self.mask_global = ViewMasking(strategy(names["global"], m), m, m.global_probability)
        local = replace(m, largest_area=m.local_largest_area or m.largest_area)
        self.mask_local = ViewMasking(strategy(names["local"], local), m, m.local_probability, shuffled=False)
        self.teacher_temperature = c.teacher_temperature
        self.mfm = c.mfm and names["global"] != "none"  # a view with no hidden token has no masked term
        self._check(parts)
        masked = self.mfm or (c.glcl and names["local"] != "none")
        self.student = Branch(parts, masked, self.mfm, c.glcl)
        if c.glcl and not self.student.encoder.extra:
            raise BadInput(f"method.glcl=true compares class tokens; backbone.kind={parts.backbone.kind} has none")
        self.teacher = teacher_of(self.student)
        self.encoder = self.student.encoder

    def _check(self, parts: Parts) -> None:
        if not (self.mfm or self.config.glcl):
            raise BadInput("method slim has no loss left: set method.glcl=true, or method.mfm=true with a masked view")
        if self.config.glcl and not parts.backbone.class_token:
            raise BadInput("method.glcl=true compares class tokens: set backbone.class_token=true")
        if self.config.mfm_views not in ("masked", "all"):
            raise unknown("method.mfm_views", self.config.mfm_views, ("masked", "all"))
        for local in parts.views.local_views():
            if local.frames % parts.backbone.patch:
                raise BadInput(
                    f"views.locals: {local.frames} frames must be a multiple of backbone.patch={parts.backbone.patch}"
                )

    def train(self, mode: bool = True) -> Slim:
        """The teacher stays in evaluation mode: no stochastic depth in its targets."""
        super().train(mode)
        self.teacher.eval()
        return self

    @classmethod
    def strategies(cls, masking: MaskingConfig) -> dict[str, str]:
        return {
            "global": masking.global_view or masking.strategy,
            "local": masking.local_view or masking.strategy,
        }

    @property
    def kept(self) -> Encoder:
        return self.teacher.encoder

    def last_layers(self) -> list[nn.Parameter]:
        """The student's prototypes."""
        return [head.weight for head in (self.student.cls_head, self.student.patch_head) if head is not None]

    def sections(self) -> list[nn.Module]:
        """Encoder and heads."""
        return list(self.student.children())

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """MFM + lambda GLCL + koleo KoLeo on the view groups `global` (two views) and `local*`."""
        c, batch = self.config, views["global"]
        x = batch.joints[:, 0]
        with torch.no_grad():
            target = self.teacher.encoder(x)
        parts: dict[str, Tensor] = {}
        total = x.new_zeros(())
        global_cls = None
        if self.mfm:
            mask, context = self.mask_global(batch, self.encoder, draws.fork("global"))
            seen = self.student.encoder(x, hidden=mask)
            parts["mfm"] = self._mfm(seen.patches, target.patches, mask & context.observed)
            parts["masked"] = mask.float().mean()
            total = total + parts["mfm"]
            if c.masked_globals:
                global_cls = seen.cls
        if c.glcl:
            if global_cls is None:
                global_cls = self.student.encoder(x).cls
            parts["glcl"] = self._glcl(global_cls, target.cls, views, draws)
            total = total + c.lambda_glcl * parts["glcl"]
            if c.koleo:
                parts["koleo"] = sum((koleo(half) for half in global_cls.chunk(2)), x.new_zeros(()))
                total = total + c.koleo * parts["koleo"]
        return {"loss": total, **parts}

    def _mfm(self, student: Tensor, teacher: Tensor, hidden: Tensor) -> Tensor:
        """Cross-entropy at hidden tokens, averaged over each view's hidden tokens and then over (masked) views.

        Args:
            student, teacher: (sequence, patch, joint, width); hidden: bool (sequence, patch, joint).
        """
        assert self.student.patch_head is not None and self.teacher.patch_head is not None
        at, real = hidden_index(hidden, self.ratio)
        count = hidden.flatten(1).sum(1)
        views = denominator((count > 0).sum()) if self.config.mfm_views == "masked" else len(count)
        weight = 1 / (count.clamp(min=1) * views)
        rows = self.student.patch_head(student.flatten(0, 2).index_select(0, at))
        with torch.no_grad():
            targets = self.teacher.patch_head(teacher.flatten(0, 2).index_select(0, at))
        weights = weight.index_select(0, at // hidden[0].numel()) * real
        return self._cross_entropy(self.student.patch_head, rows, self.teacher.patch_head, targets, weights, real)

    def _glcl(self, global_cls: Tensor, anchors: Tensor, views: dict[str, Batch], draws: Draws) -> Tensor:
        """Cross-entropy between each anchor's class token and those of its views, averaged over pairs.

        Args:
            global_cls, anchors: (2 x clip, width), the student's and the teacher's.
        """
        assert self.student.cls_head is not None and self.teacher.cls_head is not None
        clips = len(anchors) // 2
        compared = [torch.cat(global_cls.chunk(2)[::-1])[None]]  # the other global view
        for name, local in views.items():
            if not name.startswith("local"):
                continue
            mask = None
            if self.mask_local.masking.name != "none":
                mask, _ = self.mask_local(local, self.encoder, draws.fork(name))
            cls = self.student.encoder(local.joints[:, 0], hidden=mask).cls
            if self.config.every_local:
                compared.append(cls.unflatten(0, (-1, clips)))
            else:
                by_anchor = cls.unflatten(0, (2, -1, clips))  # anchor, crop, clip
                compared.append(by_anchor.transpose(0, 1).flatten(1, 2))
        rows = self.student.cls_head(torch.cat([tokens.flatten(0, 1) for tokens in compared]))
        parted = rows.split([tokens.shape[0] * tokens.shape[1] for tokens in compared])
        against = [r.unflatten(0, t.shape[:2]).repeat(1, 2 * clips // t.shape[1], 1) for r, t in zip(parted, compared)]
        with torch.no_grad():
            targets = self.teacher.cls_head(anchors)
        return self._cross_entropy(self.student.cls_head, torch.cat(against), self.teacher.cls_head, targets)

    def _cross_entropy(
        self,
        head: PrototypeHead,
        rows: Tensor,
        teacher: PrototypeHead,
        targets: Tensor,
        weights: Tensor | None = None,
        real: Tensor | None = None,
    ) -> Tensor:
        c = self.config
        return prototype_cross_entropy(
            rows,
            head.prototypes(),
            targets,
            teacher.prototypes(),
            student_temperature=c.student_temperature,
            teacher_temperature=self.teacher_temperature,
            weights=weights,
            teacher_weights=None if real is None else real.to(targets.dtype),
            iterations=c.sinkhorn,
        )

    def before_step(self, progress: float) -> None:
        c = self.config
        if c.temperature_warmup > 0:
            grown = min(1.0, progress / c.temperature_warmup)
            self.teacher_temperature = c.first_temperature + (c.teacher_temperature - c.first_temperature) * grown

    def after_step(self, progress: float) -> None:
        follow(self.teacher, self.student, self.momentum.at(progress, self.steps))
