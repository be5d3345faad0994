"""ST-GCN against plain formulas; its graph, its removed joints, other bodies and files."""

from __future__ import annotations

import pytest
import torch

from methods.backbone import Transformer
from methods.checkpoint import load_encoder, save_encoder
from methods.encoder import EncoderConfig, make_encoder
from methods.flops import counted
from methods.stgcn import CHANNELS, STGCN, partitions
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1, KINECT_V2, OPENNI, Topology

BODY = Topology(("hip", "spine", "head", "hand"), (0, 0, 1, 1), "small")
SMALL = EncoderConfig(width=32, heads=2, patch=4, kind="stgcn")


def made(topology: Topology = BODY, config: EncoderConfig = SMALL, frames: int = 8, seed: int = 0) -> STGCN:
    """A float64 encoder in eval mode, in which every number differs from its neutral value."""
    torch.manual_seed(seed)
    encoder = STGCN(config, topology, frames).double().eval()
    with torch.no_grad():
        for name, value in (*encoder.named_parameters(), *encoder.named_buffers()):
            if value.is_floating_point() and name != "adjacency":
                noise = torch.rand_like(value) if "running_var" in name else 0.3 * torch.randn_like(value)
                value.add_(noise)
    return encoder


def bodies(sequences: int, frames: int, topology: Topology = BODY, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sequences, frames, len(topology), 3, dtype=torch.float64, generator=generator)


def normalised(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(row, channel) by the running statistics, or by the rows' own in train mode."""
    if norm.training:
        mean, variance = x.sum(0) / len(x), ((x - x.sum(0) / len(x)) ** 2).sum(0) / len(x)
    else:
        mean, variance = norm.running_mean, norm.running_var
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def plain(encoder: STGCN, joints: torch.Tensor, neighbours: list[list[int]], depth: list[int]) -> torch.Tensor:
    """The formulas in loops over layers, partitions, joints and frames; no dropout."""
    rows = normalised(encoder.norm, joints.flatten(2).flatten(0, 1))
    x = rows.view(*joints.shape)  # sequence, time, joint, channel
    for layer, importance in zip(encoder.layers, encoder.importance):
        weight, bias = layer.space.weight[:, :, 0, 0], layer.space.bias
        y = x.new_zeros(*x.shape[:3], layer.out)
        for w, near in enumerate(neighbours):
            for v in [w, *near]:
                k = 0 if v == w else 1 if depth[v] > depth[w] else 2
                part = slice(k * layer.out, (k + 1) * layer.out)
                message = x[:, :, v] @ weight[part].T + bias[part]
                y[:, :, w] += message * importance[k, v, w] / (1 + len(near))
        y = normalised(layer.norm1, y.flatten(0, 2)).view(y.shape).clamp(min=0)
        stride, frames = layer.time.stride[0], y.shape[1]
        out = y.new_zeros(len(y), -(-frames // stride), *y.shape[2:])
        for t in range(out.shape[1]):
            out[:, t] += layer.time.bias
            for f in range(9):
                at = t * stride + f - 4
                if 0 <= at < frames:
                    out[:, t] += y[:, at] @ layer.time.weight[:, :, f, 0].T
        out = normalised(layer.norm2, out.flatten(0, 2)).view(out.shape)
        if layer.residual and layer.shortcut is not None:
            convolution, norm = layer.shortcut
            short = x[:, ::stride] @ convolution.weight[:, :, 0, 0].T + convolution.bias
            out = out + normalised(norm, short.flatten(0, 2)).view(short.shape)
        elif layer.residual:
            out = out + x
        x = out.clamp(min=0)
    return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("patch", [1, 4, 8])
def test_equals_the_plain_formulas(patch, training):
    encoder = made(config=EncoderConfig(width=16, heads=2, patch=patch, kind="stgcn", dropout=0.0)).train(training)
    joints = bodies(3, 8)
    with torch.no_grad():
        expected = plain(encoder, joints, [[1], [0, 2, 3], [1], [1]], [0, 1, 2, 2])
        found = encoder(joints).patches
    assert found.shape == (3, *encoder.grid(8), 16) == (3, 8 // patch, 4, 16)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_sizes_are_aimclrs():
    encoder = STGCN(EncoderConfig(patch=4, kind="stgcn"), KINECT_V2, 48)
    assert [layer.out for layer in encoder.layers] == [16, 16, 16, 16, 32, 32, 32, 64, 64, 256]
    assert [layer.time.stride[0] for layer in encoder.layers] == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert [layer.dropout.p for layer in encoder.layers] == [0.0] + [0.5] * 9
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(0.83, abs=0.01)
    assert encoder(torch.zeros(2, 48, 25, 3)).patches.shape == (2, 12, 25, 256)
    assert encoder(torch.zeros(2, 48, 25, 3)).cls is None


@pytest.mark.parametrize("topology", [KINECT_V2, OPENNI, BODY], ids=lambda t: t.name)
def test_partitions_average_over_the_neighbourhood(topology):
    a = partitions(topology)
    torch.testing.assert_close(a.sum((0, 1)), torch.ones(len(topology)))
    assert torch.equal((a > 0).sum(0), ((a > 0).sum(0) > 0).long())  # every edge in one partition
    for joint, degree in enumerate(topology.degrees):
        assert a[0, joint, joint] == pytest.approx(1 / (1 + degree))
        assert (a[2, :, joint] > 0).sum() == (joint != topology.root)
        assert (a[1, :, joint] > 0).sum() == degree - (joint != topology.root)
        assert joint == topology.root or a[2, topology.parents[joint], joint] > 0


def test_in_evaluation_features_do_not_depend_on_the_batch():
    encoder, joints = made(), bodies(4, 8)
    whole = encoder(joints).patches
    torch.testing.assert_close(torch.cat([encoder(x[None]).patches for x in joints]), whole, rtol=0, atol=1e-12)
    encoder.train()
    assert (encoder(joints).patches[:2] - encoder(joints[:2]).patches).abs().max() > 1e-3


def test_removed_joints_are_not_in_the_graph():
    encoder, joints, keep = made(), bodies(3, 8), torch.tensor([0, 2, 3])
    found = encoder.encode_joints(joints, keep).patches
    other = joints.clone()
    other[:, :, 1] = 7.0
    assert torch.equal(encoder.encode_joints(other, keep).patches, found)
    # The same numbers as a graph in which the removed joint has no edge.
    with torch.no_grad():
        encoder.adjacency[:, 1] = 0
        encoder.adjacency[:, :, 1] = 0
    torch.testing.assert_close(found, encoder(joints).patches[:, :, keep], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["stgcn", "transformer"])
@pytest.mark.parametrize("training", [False, True])
def test_keeping_all_joints_is_the_whole_body(kind, training):
    config = EncoderConfig(width=16, depth=1, heads=2, patch=4, kind=kind, dropout=0.0)
    encoder = make_encoder(config, KINECT_V2, 8).double().train(training)
    joints = bodies(3, 8, KINECT_V2)
    whole, kept = encoder(joints), encoder.encode_joints(joints, torch.arange(25))
    torch.testing.assert_close(kept.patches, whole.patches, rtol=0, atol=1e-12)
    few = torch.tensor([1, 4, 5, 20])
    assert encoder.encode_joints(joints, few).patches.shape == (3, 2, 4, 16)
    other = joints.clone()
    other[:, :, [0, 7]] += 1
    assert torch.equal(encoder.encode_joints(other, few).patches, encoder.encode_joints(joints, few).patches)


def test_a_transformer_without_joints_encodes_the_visible_tokens():
    encoder = Transformer(EncoderConfig(width=16, depth=2, heads=2, patch=4), BODY, 8).double()
    joints = bodies(2, 8)
    found = encoder.encode_joints(joints, torch.tensor([1, 3]))
    expected = encoder(joints, visible=torch.tensor([[1, 3, 5, 7]] * 2))
    assert torch.equal(found.patches.flatten(1, 2), expected.patches) and torch.equal(found.cls, expected.cls)


def test_an_encoder_comes_back_bit_for_bit(tmp_path):
    encoder = made(KINECT_V1).float()
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    back = load_encoder(tmp_path / "encoder.safetensors")
    assert isinstance(back, STGCN) and back.config == encoder.config and not back.training
    joints = bodies(2, 8, KINECT_V1).float()
    assert torch.equal(back(joints).patches, encoder(joints).patches)


def test_another_body_takes_edges_by_name():
    encoder = made(KINECT_V1)
    other = encoder.on(KINECT_V2)
    assert not other.training and torch.equal(other.adjacency.float(), partitions(KINECT_V2))
    for mine, yours in zip(encoder.importance, other.importance):
        for a, name in enumerate(KINECT_V2.joints):
            for b, to in enumerate(KINECT_V2.joints):
                known = name in KINECT_V1.joints and to in KINECT_V1.joints
                at = (slice(None), KINECT_V1.joints.index(name), KINECT_V1.joints.index(to)) if known else ()
                assert torch.equal(yours[:, a, b], mine[at] if known else torch.ones(3, dtype=torch.float64))
    thumb, hand = KINECT_V2.joints.index("thumb_left"), KINECT_V1.joints.index("hand_left")
    assert torch.equal(other.norm.running_mean.view(-1, 3)[thumb], encoder.norm.running_mean.view(-1, 3)[hand])
    same = encoder.on(KINECT_V1)
    joints = bodies(2, 8, KINECT_V1)
    assert torch.equal(same(joints).patches, encoder(joints).patches)
    with pytest.raises(BadInput, match="shares no joint"):
        encoder.on(Topology(("a", "b"), (0, 0), "other"))


def test_the_order_of_joints_does_not_matter():
    order = list(reversed(range(15)))
    names = tuple(OPENNI.joints[j] for j in order)
    turned = Topology(names, tuple(order.index(OPENNI.parents[j]) for j in order))
    encoder, joints = made(OPENNI), bodies(2, 8, OPENNI)
    found, expected = encoder.on(turned)(joints.flip(2)).patches, encoder(joints).patches.flip(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("patch", [2, 4])
def test_flops_on_the_meta_device(patch):
    config = EncoderConfig(width=32, heads=2, patch=patch, kind="stgcn")
    encoder = STGCN(config, KINECT_V2, 16).to("meta")
    frames, before, expected = 16, 3, 0
    for i, times in enumerate(CHANNELS):
        out = 2 * times
        expected += frames * 25 * 3 * out * before + frames * out * 3 * 25 * 25  # spatial convolution, product with A
        halved = i in (4, 7)[: patch // 2]
        frames //= 1 + halved
        expected += frames * 25 * 9 * out * out
        if i and (halved or before != out):
            expected += frames * 25 * before * out
        before = out
    assert counted(lambda: encoder(torch.empty(3, 16, 25, 3, device="meta"))) == 3 * 2 * expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 24, "heads": 2}, "backbone.width=24 must be a multiple of 16"),
        ({"patch": 16}, "takes 1, 2, 4, 8"),
        ({"patch": 3}, "views.frames=16 must be a multiple"),
        ({"dropout": 1.0}, "backbone.dropout=1.0 must be in"),
        ({"kind": "stgnc"}, "did you mean 'stgcn'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(BadInput, match=message):
        make_encoder(EncoderConfig(**{"width": 32, "heads": 2, "patch": 4, "kind": "stgcn", **fields}), BODY, 16)


def test_single_tokens_cannot_be_hidden():
    with pytest.raises(BadInput, match="has no tokens to hide"):
        make_encoder(SMALL, BODY, 8, masked=True)
    encoder, joints = made(), bodies(2, 8)
    with pytest.raises(BadInput, match="cannot hide single tokens"):
        encoder(joints, hidden=torch.zeros(2, 2, 4, dtype=torch.bool))
    with pytest.raises(BadInput, match="cannot hide single tokens"):
        encoder(joints, visible=torch.zeros(2, 3, dtype=torch.long))
