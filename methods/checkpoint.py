"""Files of a training run: checkpoints to go on from, and encoders to keep.

A checkpoint is read with `weights_only=True`; an encoder is a safetensors file whose header says how to build it, so
that it can be judged without the run it came from. Every file appears whole or not at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from methods.encoder import Encoder, EncoderConfig, make_encoder
from skeletons.errors import BadInput
from skeletons.topology import Topology
from skeletons.whole import written_whole

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, optimiser states and plain values."""
    with written_whole(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint at `path`; None if there is none.

    Raises:
        BadInput: the file is damaged or of another format.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise BadInput(f"{path}: damaged checkpoint ({_short(error)}); remove it to start this run again") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadInput(f"{path}: a checkpoint of another version; remove it to start this run again")
    return state


def _short(error: Exception) -> str:
    """The first line of a message: torch writes pages."""
    return str(error).partition("\n")[0]


def save_encoder(path: Path, encoder: Encoder, about: dict[str, str] | None = None) -> None:
    """Write an encoder with its configuration and topology.

    Args:
        about: strings to keep with it, e.g. the run's identity.
    """
    from safetensors.torch import save_file

    t = encoder.topology
    header = {
        "format": FORMAT,
        "encoder": asdict(encoder.config),
        "frames": encoder.frames,
        "topology": {"joints": t.joints, "parents": t.parents, "name": t.name},
        "masked": encoder.mask_token is not None,
        "about": about or {},
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in encoder.state_dict().items()}
    with written_whole(path) as temporary:
        # One entry: safetensors writes several in no fixed order, and equal encoders should be equal files.
        save_file(tensors, temporary, {"skelbench": json.dumps(header)})


def told_with(path: Path) -> dict[str, str]:
    """What `save_encoder` was told to keep with an encoder; nothing where the file is not one of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return json.loads((file.metadata() or {}).get("skelbench", "{}")).get("about", {})
    except (SafetensorError, OSError, ValueError):
        return {}


def load_encoder(path: Path, device: torch.device | str = "cpu") -> Encoder:
    """An encoder written by `save_encoder`.

    Raises:
        BadInput: no such file, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BadInput(f"{path}: no such encoder file")
    try:
        with safe_open(str(path), "pt") as file:
            header = json.loads((file.metadata() or {})["skelbench"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        t = header["topology"]
        topology = Topology(tuple(t["joints"]), tuple(t["parents"]), t["name"])
        encoder = make_encoder(EncoderConfig(**header["encoder"]), topology, header["frames"], header["masked"])
        encoder.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path}: not an encoder written by SkelBench, or damaged ({_short(error)})") from error
    return encoder.to(device).eval()
