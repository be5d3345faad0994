"""An encoder out of a checkpoint of SLiM's release (github KAIST-VICLab/SLiM, announced at commit 6218c70).

Known from the public code, read there and written anew: a training run and `tools/export_encoder.py` save
`{"teacher": {"backbone.<key>": tensor}}` with torch (`.pth`); `slim/hub.py` saves the keys alone (`.safetensors`).
The network is DINOv2's vision transformer with D = 256 channels, 8 blocks, 8 heads, patches of P = 8 frames x 1 joint,
V = 25 joints and R = 4 registers (slim/models/vision_transformer.py, slim/layers/):

    their key                              shape                    ours
    -------------------------------------  -----------------------  ------------------------------------------------
    cls_token + pos_embed[:, 0]            (1, 1, D), (1, 1+V, D)   prefix[0]: the class token has slot 0 of the table
    register_tokens                        (1, R, D)                prefix[1:]: without a position, as there
    pos_embed[:, 1:]                       (1, V, D)                joint: one row a joint, NTU's order
    mask_token                             (1, D)                   mask_token: put in before the joint embedding
    patch_embed.proj                       (D, 3, P, 1)             embed: (D, P x 3), frame by frame, then coordinate
    blocks.i.norm1, norm2                  (D)                      blocks.i.norm1, norm2 (eps 1e-6)
    blocks.i.attn.qkv, attn.proj           (3D, D), (D, D)          attention.qkv (query, key, value; heads inside), out
    blocks.i.mlp.w12, mlp.w3               (2H, D), (D, H)          mlp.up (gate, then value), down; H = 688
    norm                                   (D)                      norm

Temporal position is rotary in both (base 10,000, pairs half a head apart, from 0 in every crop) and has no weights.
ASSUMPTION: that the published files follow the published code: none was at hand. ASSUMPTION: in `mlp.w12` the gate
comes first, as in DINOv2's SwiGLU, of which the release's own copy (slim/layers/swiglu_ffn.py) is not among our
sources. The number of heads cannot be seen in a file.
The encoder expects metres; the release trained on single persons whose spine's middle was at 0 in the first frame.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.checkpoint import load_encoder
from methods.encoder import Encoder, EncoderConfig, make_encoder
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V2, Topology

_INNER = {"attn.qkv": "attention.qkv", "attn.proj": "attention.out", "mlp.w12": "mlp.up", "mlp.w3": "mlp.down"}
_FIRST = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "mask_token")


def open_encoder(path: Path, device: torch.device | str = "cpu") -> Encoder:
    """An encoder out of any file that we can read: one of ours, or a checkpoint of the release.

    Raises:
        BadInput: no such file, or one of neither kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            ours = "skelbench" in (file.metadata() or {})
    except (SafetensorError, OSError):
        ours = False
    return load_encoder(path, device) if ours else load_released(path, device=device)


def load_released(
    path: Path, topology: Topology = KINECT_V2, heads: int = 8, frames: int = 64, device: torch.device | str = "cpu"
) -> Encoder:
    """The encoder in a checkpoint of the release, ready to be judged.

    Args:
        path: a `.pth` or `.safetensors` file.
        topology: of the rows of its joint table.
        heads: of its attention.
        frames: of the longest view.

    Raises:
        BadInput: no such file, a damaged one, or weights that do not fit.
    """
    theirs = _weights(path)
    missing = [key for key in _FIRST if key not in theirs]
    if missing:
        raise BadInput(f"{path}: not an encoder of SLiM's release, it has no {', '.join(missing)}")
    patches = theirs["patch_embed.proj.weight"]
    table = theirs["pos_embed"]
    if patches.ndim != 4 or patches.shape[1] != 3 or patches.shape[3] != 1 or table.ndim != 3:
        raise BadInput(
            f"{path}: patch_embed.proj.weight {tuple(patches.shape)} and pos_embed {tuple(table.shape)} "
            "should be (width, 3, frames, 1) and (1, 1 + joints, width)"
        )
    if table.shape[1] != 1 + len(topology):
        raise BadInput(f"{path}: its table has {table.shape[1] - 1} joints, topology {topology.name} {len(topology)}")
    registers = theirs.get("register_tokens", table.new_zeros(1, 0, table.shape[2]))
    config = EncoderConfig(
        width=patches.shape[0],
        depth=len({key.split(".")[1] for key in theirs if key.startswith("blocks.")}),
        heads=heads,
        patch=patches.shape[2],
        registers=registers.shape[1],
        mlp="swiglu",
        mlp_hidden=len(theirs.get("blocks.0.mlp.w12.weight", ())) // 2,
    )
    encoder = make_encoder(config, topology, frames, masked=True)
    _fill(path, encoder, _renamed(theirs, registers))
    return encoder.to(device).eval()


def _weights(path: Path) -> dict[str, Tensor]:
    """The backbone's tensors, by the release's keys without their prefix."""
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many kinds for a damaged file
        raise BadInput(f"{path}: cannot be read ({str(error).partition(chr(10))[0]})") from error
    for name in ("teacher", "student"):  # the teacher is what the release judges
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
            break
    if not isinstance(state, dict):
        raise BadInput(f"{path}: not a checkpoint of SLiM's release, it holds a {type(state).__name__}")
    tensors = {key: value.float() for key, value in state.items() if isinstance(value, Tensor)}
    inside = {key.removeprefix("backbone."): x for key, x in tensors.items() if key.startswith("backbone.")}
    return inside or tensors


def _renamed(theirs: dict[str, Tensor], registers: Tensor) -> dict[str, Tensor]:
    """Our keys and layouts; keys of theirs that are unknown stay as they are."""
    table = theirs["pos_embed"]
    ours = {
        "prefix": torch.cat([theirs["cls_token"] + table[:, :1], registers], 1)[0],
        "joint": table[0, 1:],
        "mask_token": theirs["mask_token"],
        "embed.weight": theirs["patch_embed.proj.weight"].permute(0, 2, 3, 1).flatten(1),
        "embed.bias": theirs["patch_embed.proj.bias"],
    }
    for key, value in theirs.items():
        if key in _FIRST or key == "register_tokens":
            continue
        block = re.fullmatch(r"(blocks\.\d+\.)(.+)(\.\w+)", key)
        if block:
            start, inner, end = block.groups()
            key = f"{start}{_INNER.get(inner, inner)}{end}"
        ours[key] = value
    return ours


def _fill(path: Path, encoder: Encoder, ours: dict[str, Tensor]) -> None:
    """Load, or say in one line what does not fit."""
    expected = encoder.state_dict()
    wrong = [f"lacks {key}" for key in expected if key not in ours]
    wrong += [f"has an unknown {key}" for key in ours if key not in expected]
    wrong += [
        f"has {key} of shape {tuple(ours[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in ours and ours[key].shape != tensor.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise BadInput(f"{path}: does not fit SLiM's encoder: {'; '.join(wrong[:3])}{more}")
    encoder.load_state_dict(ours)
