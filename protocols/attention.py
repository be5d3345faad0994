"""Where an encoder looks: its last layer's attention over joints and time, mean over the test clips of each class.

It is that of the class token, or, where there is none, the mean over all patch tokens, and the mean over heads and the
persons present. What an encoder attends to is not what decides: it is a picture, not a proof.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from methods.encoder import Encoder
from methods.persons import mean_over_persons, present_ones
from protocols.base import Subject
from protocols.features import frozen_on
from skeletons.sampling import centre_view
from skeletons.streams import JOINT

ENTRIES = 2**26  # of all heads' attention matrices in a batch


@torch.no_grad()
def attention_maps(encoder: Encoder, subject: Subject, places: np.ndarray) -> Float[Tensor, "clip patch joint"] | None:
    """Attention on each token of the evaluation views of test clips, float32 on the CPU; None of an encoder that does
    not attend.

    Args:
        places: in the test part.
    """
    grid = encoder.grid(encoder.frames)
    tokens = grid[0] * grid[1] + encoder.extra
    batch = max(1, min(256, ENTRIES // (encoder.config.heads * tokens**2)))
    found = []
    for rows in torch.from_numpy(subject.part.test[places]).to(subject.store.device).split(batch):
        view = centre_view(subject.store, rows, subject.views, encoder.frames)
        joints, _, at = present_ones(view)
        one = encoder.attention(joints)
        if one is None:
            return None
        found.append(mean_over_persons(one.float().flatten(1), at, view).unflatten(1, grid))
    return torch.cat(found).cpu()


def attention_of(subject: Subject, places: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays to be drawn; none of raw coordinates, or of an encoder that does not attend.

    Args:
        places: test clips, in the test part.

    Returns:
        `attention` float16 (class, patch, joint), the share of attention, NaN where a class has no clip; of the clip of
        each class whose own map is nearest to that mean: `attention_joints` float16 (class, patch, joint, 3), metres,
        the first person in the middle of each time patch, `attention_observed` bool (class, patch, joint), and
        `attention_clips`, its name, empty where there is none.
    """
    if subject.encoder is None:
        return {}
    with frozen_on(subject.encoder, subject.store) as encoder:
        maps = attention_maps(encoder, subject, places)
        patch, frames = encoder.patch, encoder.frames
    if maps is None:
        return {}
    truth, classes = subject.labels[1][torch.from_numpy(places)], subject.classes
    mean = torch.full((classes, *maps.shape[1:]), torch.nan)
    shown = np.full(classes, -1)
    for number in truth.unique().tolist():
        mine = (truth == number).nonzero()[:, 0]
        mean[number] = maps[mine].mean(0)
        shown[number] = places[mine[(maps[mine] - mean[number]).flatten(1).norm(dim=1).argmin()]]
    rows = torch.from_numpy(subject.part.test[shown.clip(0)]).to(subject.store.device)
    view = centre_view(subject.store, rows, subject.views, frames, JOINT)  # a body is drawn
    at = torch.arange(maps.shape[1]) * patch + patch // 2
    seen = (view.observed & view.present[:, :, None, None])[:, 0, at].cpu().numpy() & (shown >= 0)[:, None, None]
    names = subject.data.names(subject.part.test[shown.clip(0)])
    return {
        "attention": mean.numpy().astype(np.float16),
        "attention_joints": view.joints[:, 0, at].cpu().numpy().astype(np.float16),
        "attention_observed": seen,
        "attention_clips": np.array([name if one >= 0 else "" for name, one in zip(names, shown)]),
    }
