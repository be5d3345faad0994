"""ASMa: asymmetric spatio-temporal masking (TMLR 2026; openreview kIFo1q3VMS).

Two encoders, each trained like PSTL (methods/pstl.py) on three streams, an anchor that sees everything, one without
some joints and one without some frames, with Barlow Twins between the anchor and each of the others:

- A: joints of high degree and frames of low motion are taken away;
- B: joints of low degree and frames of high motion are taken away.

A learnable module aligns the two (bidirectional attention, methods/aligned.py); the aligned pair is what is judged:
an encoder of kind `aligned_pair` whose tokens are A's and B's, concatenated. `alignment=false` leaves the module out
(kind `pair`). A small student can be distilled from it: protocols/distill.py.

Published: the two maskings, the redundancy-reduction training, that the alignment is learnt and used downstream, and
the student's sizes (91.4 % fewer parameters, 3 times faster). Hardly any number is published: the values of PSTL, on
which ASMa builds, stand in. ASSUMPTION, each:

- Joints are drawn in proportion to degree (A) or to 1 / degree (B), 8 draws of 25 joints, as in PSTL; `threshold`
  reads the abstract's "degree 3 or 4" as a threshold. Frames: PSTL's rule, in B as there, in A the slowest are dropped.
- A and B are trained side by side in one run on the same crops; they share no weight, and the loss is the sum.
- The alignment's objective is not published; it can be trained with a downstream objective. Protocols that know no
  labels need one without: Barlow Twins, on the features themselves, between aligned features of one encoder's anchor
  and of the other encoder's masked streams,

      L_align = sum_{s in spatial, temporal} BT(a'_0, b'_s) + BT(b'_0, a'_s),

  so that channel i of A's aligned features says what channel i of B's does. No gradient flows from it into A and B.
- lambda of L_align is set for its fewer outputs as in PSTL.
- The encoders are transformers, joint removal means the token is not there; the paper's are ST-GCNs
  (`backbone.kind=stgcn`).

On the demo, 9,000 clips, 1-NN of withheld subjects (144 clips, +-4; one run each): 41.7 untrained and 45.8 trained with
the alignment, 43.8 and 48.6 without it. So short a run does not show that the alignment helps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from methods.aligned import AlignedPair, Pair
from methods.base import Method, Parts
from methods.encoder import Encoder, make_encoder
from methods.losses import barlow_twins
from methods.masking import all_strategies
from methods.masking.degree import DegreeMasking
from methods.pstl import OUTPUTS, READS, Masker, Projector, PstlConfig, Stream, three_views
from skeletons.errors import unknown
from skeletons.randomness import Draws
from skeletons.sampling import Batch


@dataclass
class AsmaConfig(PstlConfig):
    """ASMa's fields.

    Attributes:
        alignment: learn the alignment; else the two encoders' tokens are concatenated as they are.
        first, second: what is taken away in A's streams and in B's, by the names of the masking strategies.
    """

    name: str = "asma"
    alignment: bool = True
    first: str = "degree_high_motion_low"
    second: str = "degree_low_motion_high"


class Asma(Method):
    """See the module's text."""

    name = "asma"
    Config = AsmaConfig
    crops = 3
    reads = READS

    def __init__(self, parts: Parts):
        super().__init__()
        self.config: AsmaConfig = parts.method
        kind = AlignedPair.kind if self.config.alignment else Pair.kind
        paired = replace(parts.backbone, kind=kind, members=parts.backbone.kind)
        pair = make_encoder(paired, parts.topology, parts.views.frames)
        assert isinstance(pair, Pair)
        self.encoder: Pair = pair
        self.projector_a, self.projector_b = (Projector(e.width, parts.heads) for e in (pair.first, pair.second))
        self.masker_a = self._masker("first", parts)
        self.masker_b = self._masker("second", parts)
        self.weight = self.config.off_diagonal * OUTPUTS / parts.heads.bottleneck
        self.alignment_weight = self.config.off_diagonal * OUTPUTS / pair.first.width

    def _masker(self, field: str, parts: Parts) -> Masker:
        known = {name: one for name, one in all_strategies().items() if issubclass(one, DegreeMasking)}
        name = getattr(self.config, field)
        if name not in known:
            raise unknown(f"method.{field}", name, known)
        return Masker(self.config, parts.topology, known[name].high_degree, known[name].high_motion)

    def loss(self, views: dict[str, Batch], draws: Draws) -> dict[str, Tensor]:
        """L_A + L_B + L_align of the view group `clip`, three views of each clip."""
        batches = three_views(views, self.encoder.patch)
        a = self._streams(self.encoder.first, self.masker_a, batches, draws.fork("a"))
        b = self._streams(self.encoder.second, self.masker_b, batches, draws.fork("b"))
        parts = {"a": self._redundancy(a, self.projector_a), "b": self._redundancy(b, self.projector_b)}
        if self.config.alignment:
            parts["alignment"] = self._alignment(a, b)
        return {"loss": sum(parts.values(), batches[0].joints.new_zeros(())), **parts}

    def _streams(self, encoder: Encoder, masker: Masker, batches: list[Batch], draws: Draws) -> list[Stream]:
        """Anchor, spatial and temporal stream."""
        return [
            masker.anchor(encoder, batches[0]),
            masker.spatial(encoder, batches[1], draws.fork("joints")),
            masker.temporal(encoder, batches[2], draws.fork("frames")),
        ]

    def _redundancy(self, streams: list[Stream], projector: Projector) -> Tensor:
        anchor, spatial, temporal = (projector(stream.pooled()) for stream in streams)
        return barlow_twins(anchor, spatial, self.weight) + barlow_twins(anchor, temporal, self.weight)

    def _alignment(self, a: list[Stream], b: list[Stream]) -> Tensor:
        """L_align; see the module's text."""
        features = []
        for first, second in zip(a, b):
            aligned = self.encoder.align(first.tokens.detach(), second.tokens.detach())
            features.append((first.pooled(aligned[0]), second.pooled(aligned[1])))
        (a_0, b_0), *masked = features
        terms = [barlow_twins(x, y, self.alignment_weight) for a_s, b_s in masked for x, y in ((a_0, b_s), (b_0, a_s))]
        return sum(terms, a_0.new_zeros(()))
