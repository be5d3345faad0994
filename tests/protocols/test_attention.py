"""What an encoder attends to, against attention that lets through one token at a time, and plain means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.encoder import EncoderConfig, make_encoder
from protocols.attention import attention_maps, attention_of
from skeletons.clips import Clips
from skeletons.sampling import centre_view
from skeletons.topology import KINECT_V1
from tests.protocols.test_embedding import judged, subject

SMALL = EncoderConfig(width=16, depth=2, heads=2, patch=4)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("position", ["rope", "learned"])
def test_weights_are_what_the_last_block_lets_through(class_token, position):
    """Values that are 1 at one token and 0 elsewhere come out as the attention to it."""
    shape = replace(SMALL, class_token=class_token, registers=1, position=position)
    encoder = make_encoder(shape, KINECT_V1, 16).eval()
    joints = torch.randn(3, 16, len(KINECT_V1), 3)
    tokens, last = encoder.extra + 4 * len(KINECT_V1), encoder.blocks[-1]
    seen = {}

    def through(q, k, v):
        seen["weights"] = scaled(q, k, torch.eye(tokens).expand(*q.shape[:2], -1, -1))
        return scaled(q, k, v)

    scaled = F.scaled_dot_product_attention
    with torch.no_grad(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", through)
        encoder(joints)  # the last block is the last to be seen
        patched.undo()
        found = encoder.attention(joints)
    weights = seen["weights"].mean(1)
    expected = weights[:, 0] if class_token else weights[:, encoder.extra :].mean(1)
    assert found.shape == (3, 4, len(KINECT_V1)) and last is encoder.blocks[-1]
    torch.testing.assert_close(found.flatten(1), expected[:, encoder.extra :])
    assert (found.sum((1, 2)) < 1).all(), "the rest goes to tokens before the patches"


def test_a_pair_attends_as_the_mean_of_both_and_a_convolution_does_not():
    pair = make_encoder(replace(SMALL, kind="pair"), KINECT_V1, 16).eval()
    joints = torch.randn(2, 16, len(KINECT_V1), 3)
    with torch.no_grad():
        torch.testing.assert_close(
            pair.attention(joints), (pair.first.attention(joints) + pair.second.attention(joints)) / 2
        )
    stgcn = make_encoder(replace(SMALL, kind="stgcn"), KINECT_V1, 16)
    assert stgcn.attention(joints) is None


def test_arrays_are_means_over_persons_and_clips_of_a_class(clips: Clips):
    one = subject(clips)
    places = np.arange(0, len(one.part.test), 2)
    maps = attention_maps(one.encoder, one, places)
    kept, truth = attention_of(one, places), one.labels[1].numpy()[places]
    for place, clip in enumerate(one.part.test[places]):
        view = centre_view(one.store, torch.tensor([clip]), one.views, 16)
        with torch.no_grad():
            each = [one.encoder.attention(view.joints[:, p])[0] for p in range(2) if view.present[0, p]]
        torch.testing.assert_close(maps[place], torch.stack(each).mean(0))
    for number in range(one.classes):
        mine = maps.numpy()[truth == number]
        if not len(mine):
            assert np.isnan(kept["attention"][number]).all() and kept["attention_clips"][number] == ""
            continue
        np.testing.assert_allclose(kept["attention"][number], mine.mean(0), rtol=2e-3)
        near = np.square(mine - mine.mean(0)).sum((1, 2)).argmin()
        name = one.data.names(one.part.test[places[truth == number][near]][None])[0]
        assert kept["attention_clips"][number] == name
    assert kept["attention_joints"].shape == (*kept["attention"].shape, 3)


def test_the_map_keeps_attention_of_encoders_alone(clips: Clips):
    assert {"attention", "attention_joints"} <= judged(clips).arrays.keys()
    assert not any(name.startswith("attention") for name in judged(clips, encoder=False).arrays)
