"""Checkpoints in the layout of SLiM's release, against its network written out in plain formulas on its own keys."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from methods.checkpoint import load_encoder, save_encoder
from methods.released import load_released
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1

WIDTH, DEPTH, HEADS, PATCH, JOINTS, REGISTERS, HIDDEN = 256, 8, 8, 8, 25, 4, 688


def release(width=WIDTH, depth=DEPTH, hidden=HIDDEN, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Random weights with the release's keys and shapes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + JOINTS, width),
        "register_tokens": (1, REGISTERS, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, PATCH, 1),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(depth):
        for name, (rows, columns) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.w12": (2 * hidden, width),
            "mlp.w3": (width, hidden),
        }.items():
            shapes |= {f"blocks.{i}.{name}.weight": (rows, columns), f"blocks.{i}.{name}.bias": (rows,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (width,), f"blocks.{i}.{name}.bias": (width,)}
    return {key: 0.1 * torch.randn(shape, generator=generator, dtype=dtype) for key, shape in shapes.items()}


def theirs(w: dict[str, torch.Tensor], joints: torch.Tensor, hidden: torch.Tensor, heads: int) -> torch.Tensor:
    """Output tokens (token, width) of one sequence (time, joint, 3), by the release's description (facts, card 1.8)."""
    width, depth = w["norm.weight"].numel(), sum(key.endswith("norm1.weight") for key in w)
    volume = joints.permute(2, 0, 1)[None]  # coordinates are channels, time and joints the image
    x = F.conv2d(volume, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=(PATCH, 1))[0]
    x = x.permute(1, 2, 0)  # time, joint, channel
    x = torch.where(hidden[..., None], w["mask_token"][0], x) + w["pos_embed"][0, 1:]
    time = torch.arange(len(x)).repeat_interleave(JOINTS)
    x = torch.cat([w["cls_token"][0] + w["pos_embed"][0, :1], w["register_tokens"][0], x.flatten(0, 1)])
    size = width // heads
    inverse = 10000.0 ** (-torch.arange(0, size, 2, dtype=x.dtype) / size)
    angle = torch.cat([torch.zeros(1 + REGISTERS, size // 2, dtype=x.dtype), time[:, None] * inverse])
    turn = torch.polar(torch.ones_like(angle), angle)

    def layer(name, value):
        return value @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, value):
        return F.layer_norm(value, (width,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    for i in range(depth):
        q, k, v = layer(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", x)).view(len(x), 3, heads, size).unbind(1)
        out = []
        for h in range(heads):
            a, b = (
                torch.view_as_real(
                    torch.complex(m[:, h, : size // 2].contiguous(), m[:, h, size // 2 :].contiguous()) * turn
                )
                .transpose(1, 2)
                .flatten(1)
                for m in (q, k)
            )
            out.append(torch.softmax(a @ b.T / math.sqrt(size), -1) @ v[:, h])
        x = x + layer(f"blocks.{i}.attn.proj", torch.cat(out, 1))
        gate, value = layer(f"blocks.{i}.mlp.w12", norm(f"blocks.{i}.norm2", x)).chunk(2, -1)
        x = x + layer(f"blocks.{i}.mlp.w3", gate / (1 + torch.exp(-gate)) * value)
    return norm("norm", x)


@pytest.mark.parametrize("form", ["exported", "heads and student too", "bare", "safetensors"])
def test_a_released_checkpoint_gives_the_releases_tokens(form, tmp_path):
    weights = release()
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "teacher_checkpoint.pth")
    prefixed = {f"backbone.{key}": tensor for key, tensor in weights.items()}
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    elif form == "heads and student too":
        heads = {"dino_head.last_layer.weight_v": torch.zeros(3, 2), "ibot_head.mlp.0.weight": torch.zeros(2, 2)}
        other = {key: tensor + 1 for key, tensor in prefixed.items()}
        torch.save({"teacher": prefixed | heads, "student": other, "iteration": 3}, path)
    else:
        torch.save({"teacher": prefixed, "note": "exported"} if form == "exported" else prefixed, path)
    encoder = load_released(path)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(6.37e6, rel=2e-3)  # as the release says
    assert not encoder.training and encoder.config.hidden_width() == HIDDEN
    assert (encoder.config.width, encoder.config.depth, encoder.config.registers) == (WIDTH, DEPTH, REGISTERS)
    generator = torch.Generator().manual_seed(1)
    for frames in (64, 16):
        joints = torch.randn(2, frames, JOINTS, 3, generator=generator)
        hidden = torch.rand(2, frames // PATCH, JOINTS, generator=generator) < 0.4
        with torch.no_grad():
            found = encoder(joints, hidden=hidden)
            expected = torch.stack([theirs(weights, x, m, HEADS) for x, m in zip(joints, hidden)])
        torch.testing.assert_close(found.cls, expected[:, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.patches.flatten(1, 2), expected[:, 1 + REGISTERS :], rtol=1e-4, atol=1e-4)


def test_agreement_is_exact_in_float64(tmp_path):
    weights = release(32, 2, 24, torch.float64)
    weights["cls_token"].zero_()  # its sum with the table's slot 0 is rounded where it is loaded
    torch.save({"teacher": {f"backbone.{key}": tensor.float() for key, tensor in weights.items()}}, tmp_path / "a.pth")
    encoder = load_released(tmp_path / "a.pth", heads=2).double()
    rounded = {key: tensor.float().double() for key, tensor in weights.items()}
    joints = torch.randn(32, JOINTS, 3, dtype=torch.float64)
    hidden = torch.rand(4, JOINTS) < 0.4
    expected = theirs(rounded, joints, hidden, 2)
    found = encoder(joints[None], hidden=hidden[None])
    torch.testing.assert_close(found.patches[0].flatten(0, 1), expected[5:], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.cls[0], expected[0], rtol=0, atol=1e-12)


def test_it_can_be_kept_as_one_of_ours(tmp_path):
    torch.save({"teacher": {f"backbone.{key}": t for key, t in release(32, 2, 24).items()}}, tmp_path / "a.pth")
    encoder = load_released(tmp_path / "a.pth", heads=2)
    save_encoder(tmp_path / "a.safetensors", encoder)
    joints = torch.randn(1, 64, JOINTS, 3)
    assert torch.equal(encoder(joints).patches, load_encoder(tmp_path / "a.safetensors")(joints).patches)


def without(key: str):
    return lambda w: w.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("cls_token"), "it has no cls_token"),
        (without("blocks.1.mlp.w3.bias"), "lacks blocks.1.mlp.down.bias"),
        (without("blocks.0.mlp.w12.weight"), "lacks blocks.0.mlp.up.weight"),
        (lambda w: w.update({"blocks.0.ls1.gamma": torch.ones(32)}), "has an unknown blocks.0.ls1.gamma"),
        (lambda w: w.update({"norm.weight": torch.ones(31)}), r"has norm.weight of shape \(31,\), not \(32,\)"),
        (
            lambda w: w.update({"patch_embed.proj.weight": torch.ones(32, 3, 8, 8)}),
            r"should be \(width, 3, frames, 1\)",
        ),
        (lambda w: w.update({"pos_embed": torch.ones(1, 21, 32)}), "has 20 joints, topology kinect_v2 25"),
        (lambda w: w.clear(), "not an encoder of SLiM's release"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spoil, message, tmp_path):
    weights = release(32, 2, 24)
    spoil(weights)
    torch.save({"teacher": {f"backbone.{key}": tensor for key, tensor in weights.items()}}, tmp_path / "a.pth")
    with pytest.raises(BadInput, match=message) as refused:
        load_released(tmp_path / "a.pth", heads=2)
    assert "\n" not in str(refused.value)


def test_other_files_are_refused_in_one_line(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("code in a checkpoint was run",))

    torch.save(release(32, 2, 24), tmp_path / "good.pth")
    with pytest.raises(BadInput, match="topology kinect_v1 20"):
        load_released(tmp_path / "good.pth", KINECT_V1, 2)
    torch.save({"teacher": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("none.pth", "no such checkpoint"),
        ("trap.pth", "cannot be read"),
        ("text.pth", "cannot be read"),
        ("text.safetensors", "cannot be read"),
        ("list.pth", "holds a list"),
    ):
        with pytest.raises(BadInput, match=message) as refused:
            load_released(tmp_path / name)
        assert "\n" not in str(refused.value)
