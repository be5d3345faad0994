"""Encoders and checkpoints on disk: whole, exact, or one clear line."""

from __future__ import annotations

import json

import pytest
import torch

from methods.backbone import Transformer
from methods.checkpoint import load_checkpoint, load_encoder, save_checkpoint, save_encoder
from methods.encoder import EncoderConfig
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V2, Topology

CPU = torch.device("cpu")
CUSTOM = Topology(("hip", "spine", "tail"), (0, 0, 0), "cat")


def one_line(refused) -> str:
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("topology", [KINECT_V2, CUSTOM], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig(8, 2, 2, 4),
        EncoderConfig(8, 1, 2, 4, position="learned", class_token=False, registers=0, mlp="swiglu", init="xavier"),
    ],
    ids=["slim", "mamp"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_an_encoder_comes_back_bit_for_bit(tmp_path, topology, config, masked):
    encoder = Transformer(config, topology, 16, masked)
    path = tmp_path / "deep" / "encoder.safetensors"
    save_encoder(path, encoder, {"identity": "abc"})
    back = load_encoder(path)
    assert (back.config, back.topology, back.frames) == (config, topology, 16)
    assert not back.training
    state, other = encoder.state_dict(), back.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)
    joints = torch.randn(2, 16, len(topology), 3)
    assert torch.equal(encoder(joints).patches, back(joints).patches)
    assert [p.name for p in path.parent.iterdir()] == ["encoder.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 40, 0.5, -1])
def test_a_truncated_encoder_is_refused(tmp_path, keep):
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, Transformer(EncoderConfig(8, 1, 2, 4), KINECT_V2, 16))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(BadInput) as refused:
        load_encoder(path)
    assert one_line(refused).startswith(f"{path}: not an encoder written by SkelBench, or damaged")


def test_files_that_are_not_ours_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(BadInput, match="no such encoder file"):
        load_encoder(tmp_path / "nothing.safetensors")
    path = tmp_path / "other.safetensors"
    tensors = {"a": torch.zeros(3)}
    about = {"encoder": {"width": 8}, "frames": 16, "topology": {"joints": ["a"], "parents": [0], "name": "a"}}
    for header in (
        {},
        {"skelbench": "not json"},
        {"skelbench": "[]"},
        {"skelbench": json.dumps({**about, "masked": False})},  # a width that 8 heads do not divide
        {"skelbench": json.dumps({**about, "encoder": {"width": 16}, "masked": False})},  # other tensors than it has
        {"skelbench": json.dumps({**about, "encoder": {"colour": 1}, "masked": False})},
    ):
        save_file(tensors, path, header)
        with pytest.raises(BadInput, match="not an encoder written by SkelBench") as refused:
            load_encoder(path)
        one_line(refused)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path, CPU) is None
    linear = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(path, {"step": 7, "method": linear.state_dict(), "optimizer": optimizer.state_dict()})
    back = load_checkpoint(path, CPU)
    assert back is not None and back["step"] == 7
    assert torch.equal(back["method"]["weight"], linear.weight)
    assert torch.equal(back["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "a path inside"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 7, "method": {"weight": torch.randn(200)}})
    whole = path.read_bytes()
    if damage == "a path inside":  # weights_only refuses it, with a page of advice
        torch.save({"format": 1, "where": tmp_path}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": whole[:-300], "text": b"hello"}[damage])
    with pytest.raises(BadInput, match="damaged checkpoint") as refused:
        load_checkpoint(path, CPU)
    message = one_line(refused)
    assert str(path) in message and message.endswith("remove it to start this run again")


@pytest.mark.parametrize("state", [{"format": 0, "step": 1}, {"step": 1}, torch.zeros(2)])
def test_a_checkpoint_of_another_version_is_refused(tmp_path, state):
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    with pytest.raises(BadInput, match="another version"):
        load_checkpoint(path, CPU)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"step": 2, "bad": lambda: None})  # cannot be pickled
    back = load_checkpoint(path, CPU)
    assert back is not None and back["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
