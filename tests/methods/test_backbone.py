"""The encoder against plain formulas, its positions, mask tokens and bodies."""

from __future__ import annotations

import pytest
import torch

from methods.backbone import Attention, Block, Transformer, rotary
from methods.encoder import EncoderConfig, patchify
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI, Topology

BODY = Topology(("hip", "spine", "head", "hand"), (0, 0, 1, 1), "small")
SMALL = {"width": 12, "depth": 2, "heads": 2, "patch": 2}
MAMP = {"position": "learned", "class_token": False, "registers": 0, "init": "xavier", "norm_eps": 1e-5}


@pytest.mark.parametrize("seen", ["all", "hidden", "visible"])
@pytest.mark.parametrize(
    "variant",
    [
        {"registers": 2},
        {"registers": 1, "mlp": "swiglu"},
        {"registers": 0, "mask_token": "paper"},
        {"class_token": False, "registers": 3, "mask_token": "paper", "position": "learned"},
        MAMP,
    ],
    ids=["gelu", "swiglu", "paper", "registers", "mamp"],
)
def test_equals_the_plain_formulas(variant, seen, reference):
    encoder = Transformer(EncoderConfig(**SMALL, **variant), BODY, 8, masked=True).double()
    reference.scramble(encoder)
    joints = torch.randn(3, 6, 4, 3, dtype=torch.float64)  # shorter than the longest input
    given = {
        "all": {},
        "hidden": {"hidden": torch.rand(3, 3, 4) < 0.6},
        "visible": {"visible": torch.stack([torch.randperm(12)[:5].sort().values for _ in range(3)])},
    }[seen]
    with torch.no_grad():
        tokens, expected = encoder(joints, **given), reference.encode(encoder, joints, **given)
    patches = tokens.patches if seen == "visible" else tokens.patches.flatten(1, 2)
    torch.testing.assert_close(patches, expected[:, encoder.extra :], rtol=0, atol=1e-12)
    if encoder.config.class_token:
        torch.testing.assert_close(tokens.cls, expected[:, 0], rtol=0, atol=1e-12)
    else:
        assert tokens.cls is None


@pytest.mark.parametrize("init", ["xavier", "trunc_normal"])
def test_the_patch_embedding_starts_as_a_convolution_does(init):
    """MAMP's and SLiM's code initialises linear layers and leaves the convolution as PyTorch makes it."""
    torch.manual_seed(0)
    embed = Transformer(EncoderConfig(width=256, depth=1, heads=2, patch=4, init=init), KINECT_V2, 8).embed
    same = torch.nn.Conv2d(3, 256, (4, 1))
    for ours, theirs in ((embed.weight, same.weight), (embed.bias, same.bias)):
        assert float(ours.detach().std()) == pytest.approx(float(theirs.detach().std()), rel=0.1)
        assert float(ours.detach().abs().max()) <= 12**-0.5


def test_patches_hold_frames_then_coordinates():
    x = torch.arange(2 * 4 * 3 * 3.0).view(2, 4, 3, 3)
    assert patchify(x, 2)[1, 1, 2].tolist() == [*x[1, 2, 2].tolist(), *x[1, 3, 2].tolist()]


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_gathering_every_token_equals_encoding_all(position):
    encoder = Transformer(EncoderConfig(**SMALL, position=position), BODY, 8).double()
    joints = torch.randn(2, 8, 4, 3, dtype=torch.float64)
    order = torch.stack([torch.arange(16), torch.randperm(16)])
    whole, gathered = encoder(joints), encoder(joints, visible=order)
    for s in range(2):
        torch.testing.assert_close(gathered.patches[s], whole.patches[s].flatten(0, 1)[order[s]], rtol=0, atol=1e-12)
    torch.testing.assert_close(gathered.cls, whole.cls, rtol=0, atol=1e-12)


def test_a_hidden_patch_does_not_leak():
    encoder = Transformer(EncoderConfig(**SMALL), BODY, 8, masked=True)
    joints, hidden = torch.randn(2, 8, 4, 3), torch.rand(2, 4, 4) < 0.5
    other = torch.where(hidden.repeat_interleave(2, 1)[..., None], torch.randn(2, 8, 4, 3), joints)
    assert torch.equal(encoder(joints, hidden=hidden).patches, encoder(other, hidden=hidden).patches)
    assert not torch.allclose(encoder(joints).patches, encoder(other).patches)


@pytest.mark.parametrize(("kind", "same"), [("paper", True), ("embedding", False)])
def test_only_the_papers_mask_token_forgets_the_joint(kind, same):
    encoder = Transformer(EncoderConfig(**SMALL, mask_token=kind), BODY, 8, masked=True)
    hidden = torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[0, 2, [0, 1, 3]] = True
    tokens = encoder(torch.randn(1, 8, 4, 3), hidden=hidden).patches[0, 2]
    assert torch.allclose(tokens[0], tokens[1], atol=1e-6) == same
    assert torch.allclose(tokens[0], tokens[3], atol=1e-6) == same
    assert not torch.allclose(tokens[0], tokens[2], atol=1e-3)


def test_rotary_attention_sees_distances_in_time_only():
    attention, x = Attention(16, 2).double(), torch.randn(2, 9, 16, dtype=torch.float64)
    time = torch.arange(9) // 3

    def attend(at: torch.Tensor) -> torch.Tensor:
        return attention(x, rotary(at, 8, torch.float64))

    torch.testing.assert_close(attend(time), attend(time + 1000), rtol=0, atol=1e-12)
    assert (attend(time) - attend(2 * time)).abs().max() > 1e-4


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_the_order_of_time_matters(position):
    encoder = Transformer(EncoderConfig(**SMALL, position=position), BODY, 8).double()
    moving = torch.randn(1, 8, 4, 3, dtype=torch.float64)
    swapped = moving[:, [2, 3, 0, 1, 4, 5, 6, 7]]
    assert (encoder(moving).cls - encoder(swapped).cls).abs().max() > 1e-9


def test_another_body_takes_joint_embeddings_by_name():
    encoder = Transformer(EncoderConfig(**SMALL, **MAMP), KINECT_V1, 8)
    other = encoder.on(KINECT_V2)
    own = dict(zip(KINECT_V1.joints, encoder.joint))
    for name, row in zip(KINECT_V2.joints, other.joint):
        nearest = {"hand_tip": "hand", "thumb": "hand", "neck": "spine_shoulder"}
        side = name[name.rfind("_") :] if name.endswith(("left", "right")) else ""
        known = name if name in own else nearest[name.removesuffix(side)] + side
        assert torch.equal(row, own[known]), name
    state, moved = encoder.state_dict(), other.state_dict()
    assert all(torch.equal(state[k], moved[k]) for k in state if k != "joint")
    assert torch.equal(encoder.on(KINECT_V1).joint, encoder.joint)


def test_the_order_of_joints_does_not_matter():
    order = list(reversed(range(15)))
    names = tuple(OPENNI.joints[j] for j in order)
    turned = Topology(names, tuple(order.index(OPENNI.parents[j]) for j in order))
    encoder = Transformer(EncoderConfig(**SMALL), OPENNI, 8).double()
    joints = torch.randn(2, 8, 15, 3, dtype=torch.float64)
    found, expected = encoder.on(turned)(joints.flip(2)).patches, encoder(joints).patches.flip(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_body_without_known_joints_is_refused():
    with pytest.raises(BadInput, match="shares no joint"):
        Transformer(EncoderConfig(**SMALL), BODY, 8).on(Topology(("a", "b"), (0, 0), "other"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 10, "heads": 4}, "width=10 must be divisible by backbone.heads=4"),
        ({"width": 6, "heads": 2}, "with an even quotient"),
        ({"heads": 0}, "heads=0 must be at least 1"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"patch": 3}, "views.frames=8 must be a multiple of backbone.patch=3"),
        ({"position": "ropy"}, "did you mean 'rope'"),
        ({"mlp": "relu"}, "unknown backbone.mlp"),
        ({"init": "xavir"}, "did you mean 'xavier'"),
        ({"mask_token": "papers"}, "did you mean 'paper'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(BadInput, match=message):
        Transformer(EncoderConfig(**{**SMALL, **fields}), BODY, 8)


@pytest.mark.parametrize(
    ("config", "frames", "million"),
    [
        (EncoderConfig(patch=4, **MAMP), 120, 6.336),  # MAMP's repository
        (EncoderConfig(mlp="swiglu"), 64, 6.37),  # SLiM's release
    ],
)
def test_size_of_the_published_encoders(config, frames, million):
    encoder = Transformer(config, KINECT_V2, frames)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(million, abs=0.004)
    assert config.hidden_width() == (688 if config.mlp == "swiglu" else 1024)


def test_stochastic_depth_skips_whole_sequences_in_training_only():
    block = Block(4, 1, 8, drop=0.25)
    x = torch.ones(4000, 3, 4)
    dropped = block._dropped(x)
    assert sorted(dropped.unique().tolist()) == [0, pytest.approx(4 / 3)]
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(block.eval()._dropped(x), x)
    encoder = Transformer(EncoderConfig(**{**SMALL, "depth": 3}, drop_path=0.2), BODY, 8)
    assert [b.drop for b in encoder.blocks] == pytest.approx([0, 0.1, 0.2])
