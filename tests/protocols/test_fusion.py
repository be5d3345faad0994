"""Adding scores, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from protocols.fusion import FusionConfig, fuse


def test_fused_scores_equal_a_plain_sum(rng):
    each = [rng.normal(0, 3, (7, 4)).tolist() for _ in range(3)]
    config = FusionConfig()
    for kind in ("logits", "probabilities"):
        config.scores = kind
        found = fuse([torch.tensor(s, dtype=torch.float64) for s in each], config)
        for clip in range(7):
            for label in range(4):
                total = 0.0
                for scores, weight in zip(each, (0.6, 0.6, 0.4)):
                    row = scores[clip]
                    value = row[label]
                    if kind == "probabilities":
                        value = math.exp(value) / sum(math.exp(v) for v in row)
                    total += weight * value
                assert float(found[clip, label]) == pytest.approx(total)


def test_weights_belong_to_streams_and_a_weight_of_zero_silences_one(rng):
    each = [torch.from_numpy(rng.normal(size=(2, 5, 3))) for _ in range(3)]  # two draws
    alone = FusionConfig(weights=[0.0, 2.0, 0.0])
    assert torch.equal(fuse(each, alone).argmax(-1), each[1].argmax(-1))
    turned = FusionConfig(streams=["motion", "joint", "bone"], weights=[0.4, 0.6, 0.6])
    torch.testing.assert_close(fuse([each[2], each[0], each[1]], turned), fuse(each, FusionConfig()))


def test_probabilities_do_not_let_a_loud_stream_shout_the_others_down():
    loud, sure = torch.tensor([[30.0, 29.9]]), torch.tensor([[0.0, 3.0]])
    config = FusionConfig(streams=["joint", "bone"], weights=[1, 1])
    assert int(fuse([10 * loud, sure], config).argmax()) == 1
    assert int(fuse([40 * loud, sure], config).argmax()) == 0
    config.scores = "probabilities"
    assert int(fuse([10 * loud, sure], config).argmax()) == 1
