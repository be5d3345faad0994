"""How papers train their linear probes, each constant with its source; see shared facts, protocols.md 2.1.

What nobody published is marked ASSUMPTION. A recipe is a value; protocols/linear.py trains it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import pi

from skeletons.augment import AugmentConfig, Corruption
from skeletons.sampling import ViewConfig

# MAMP's feeder: an angle up to 0.3 rad about every axis, always, and nothing else.
SMALL_ROTATION = AugmentConfig(rotation="limited", mirroring="none", scaling="none", probability=1.0, limited_angle=0.3)

# SLiM, DownstreamAugmentation, for probes and fine-tuning: flip, bone scale, and rotation (tilt 0.3, yaw pi) with
# probability 0.5 each, as in pretraining (one factor for both arms, one for both legs); noise of 0.01 m in half of the
# views.
SLIM_AUGMENTATION = AugmentConfig(
    probability=0.5, yaw=pi, tilt=0.3, scale_sides="together", global_1=Corruption(0.01, 0.5)
)

# SLiM, slim/eval/linear.py: 13 rates, for 256 clips.
SLIM_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


@dataclass(frozen=True)
class Recipe:
    """A linear probe of the field: SGD with momentum 0.9, no weight decay, cosine to 0 without warm-up.

    Attributes:
        paper: whose it is.
        tokens: what a head reads: `mean`, `cls` or `cls+mean`; each is a head of its own.
        blocks: of so many last blocks (their class tokens; the mean is the last one's); each is a head of its own.
        persons: how persons are pooled, one of persons.PERSONS.
        rates: absolute learning rates; each is a head of its own.
        length, batch: of training.
        norm: batch norm without parameters before the layer, eps 1e-6.
        crop_low, crop_high: share of a clip that a training view covers.
        min_frames: and at least so many frames of it, or all.
        augment: of training views.
        evaluations: how often, evenly spread, the last time at the end, the test clips are predicted for `best_test`.
    """

    paper: str
    tokens: tuple[str, ...] = ("mean",)
    blocks: tuple[int, ...] = (1,)
    persons: str = "mamp"
    rates: tuple[float, ...] = (0.1,)
    length: str = "100 epochs"
    batch: int = 256
    norm: bool = True
    crop_low: float = 0.5
    crop_high: float = 1.0
    min_frames: int = 64
    augment: AugmentConfig = field(default_factory=lambda: SMALL_ROTATION)
    evaluations: int = 100

    def crops(self, views: ViewConfig, frames: int) -> ViewConfig:
        """Views of so many frames, cropped as the recipe says."""
        low, high, least = self.crop_low, self.crop_high, self.min_frames
        return replace(views, frames=frames, crop_low=low, crop_high=high, min_frames=least)


RECIPES = {
    # main_linprobe.py, engine_linprobe.py, script_linprobe.sh: mean over persons (an empty one too), times and joints
    # of the output; lr 0.1, two GPUs of 128 clips; the best test accuracy over epochs is reported. (PKU-MMD II: two of
    # 16 clips and lr 0.01.) HA-CM's is the same.
    "mamp": Recipe("MAMP"),
    # The paper: 100 epochs at batch 256, a rate of 0.01 that falls to 0. ASSUMPTION: all else as MAMP's.
    "amr": Recipe("AMR", rates=(0.01,)),
    # slim/eval/linear: 52 heads (13 rates, the last block or four, with and without the mean patch token) on the same
    # batches, 10 x 2000 steps of 16 clips on 4 GPUs, rates times 64 / 256, sum over present persons, no norm; the best
    # of the heads on the test clips is reported. Crops as MAMP's, but for their least length.
    "slim": Recipe(
        "SLiM",
        tokens=("cls", "cls+mean"),
        blocks=(1, 4),
        persons="sum",
        rates=tuple(rate * 64 / 256 for rate in SLIM_RATES),
        length="20000 steps",
        batch=64,
        norm=False,
        min_frames=16,
        augment=SLIM_AUGMENTATION,
        evaluations=1,
    ),
}
