"""SLiM as its authors released it (github KAIST-VICLab/SLiM, commit 2b8bb41, Apache-2.0; facts read, no code copied).

The release trains `methods/slim.py` with other settings; this file only names them. Left of each line is the setting,
in brackets the file of the release that says so.

    what                    paper (`slim`)            release (`slim_released`)
    ----------------------  ------------------------  ------------------------------------------------------------
    backbone.mlp            MLP, 1024                 SwiGLU, 688 (layers)
    masking.                all global views masked   exactly half of a batch's (configs: mask_sample_probability)
      global_probability
    masking.                half of the local views   all (data/collate.py)
      local_probability
    masking.ratio_draw      each view U(.5, .9)       strata of the range over the masked part of the batch; dealt
                                                      out at random to global views, in the batch's order to local
                                                      ones, so the first anchor's crops hide less (collate.py)
    masking.subsets         connected joints          stretches of a list of the part's joints (data/masking.py)
    masking.                half of the view          half of the global view's tokens (train/train.py)
      local_largest_area
    method.masked_globals   a forward of its own      one masked forward serves MFM and GLCL (ssl_meta_arch.py)
    method.every_local      an anchor's own crops     both anchors against all 8 crops; / 18 pairs (same)
    method.mfm_views        mean over masked views    sum over masked views / all views (loss/ibot_patch_loss.py)
    method.                 not said: 0.07            0.04 -> 0.07 over 30 of 150 "epochs" (configs, train.py)
      temperature_warmup
    views.locals            2 crops of each length    1 x 32, 2 x 16, 1 x 8 frames for each anchor (augmentations.py)
    augment.yaw, tilt       180 and 30 degrees        0.3 rad about every axis (augmentations.py)
    augment.global_1, ...   none                      noise and dropped axes (augmentations.py)
    augment.scale_sides     a factor for each part    one each for torso, both arms, both legs (augmentations.py)
    train.lr_rule           not said                  2e-4 sqrt(768 / 1024) (utils/config.py)
    train.patch_embed_rate  not said                  0.2 (configs)
    train.freeze_last       not said                  prototypes rest for 1 of 150 "epochs" (configs, train.py)
    train.clip_per          not said                  3.0 for the encoder and each head (train.py)

The same in both, and in our `slim`: one random person a clip, a mask token of zeros that is put in before the joint
embedding, the smallest tube (8 of 200 tokens, and 4, 2, 1 in shorter views: always 0.04 of the view).

Left out: the gain of its prototypes, which it trains; that KoLeo looks for neighbours and strata are drawn among the
192 clips of a GPU (here in the whole batch); its resampling (random frame of each segment, no interpolation
where a clip is long enough) and its least crop lengths (16, 16, 16, 8 frames; `views.min_frames` is one for all), its
centring on the spine's middle, fp16, and a float area for tubes. Its bone scaling rebuilds bodies in index order and so
misplaces head and arms: `augment.rebuild=index` does the same, the default here is the corrected one.
ASSUMPTION: below the paper's scale, where views are fewer and the batch is small, scales set `train.lr_rule=none`.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.slim import Slim, SlimConfig


@dataclass
class SlimReleasedConfig(SlimConfig):
    """SLiM's fields with the release's values."""

    name: str = "slim_released"
    masked_globals: bool = True
    every_local: bool = True
    mfm_views: str = "all"
    temperature_warmup: float = 0.2


class SlimReleased(Slim):
    """See the module's text; the settings outside `method` stand in conf/method/slim_released.yaml."""

    name = "slim_released"
    Config = SlimReleasedConfig
