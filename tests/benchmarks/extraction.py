"""Extracting features: what of the time is loading and sampling, and not the encoder."""

from __future__ import annotations

import time

import torch

from methods.encoder import EncoderConfig, make_encoder
from methods.persons import pooled
from protocols.features import extract
from skeletons.sampling import ClipTensors, ViewConfig, centre_view
from skeletons.sources import DataConfig, open_clips

SIZES = {  # encoder, frames of its view
    "scale=demo": (EncoderConfig(width=64, depth=2, heads=2, mlp_hidden=128), 32),
    "scale=paper": (EncoderConfig(), 64),
}


def run(quick: bool = False) -> list[dict]:
    """Rows for each size: clips a second of `extract`, and the share of sampling in it, on one thread."""
    torch.set_num_threads(1)
    store = ClipTensors(open_clips(DataConfig(name="demo")))
    rows = []
    for size, (config, frames) in SIZES.items():
        count = {"scale=demo": 10_000, "scale=paper": 600}[size] // (10 if quick else 1)
        clips, views = torch.arange(count) % len(store), ViewConfig(frames=frames)
        encoder = make_encoder(config, store.topology, frames).eval()
        parts = clips.split(256)
        spent = {"sampling": 0.0, "encoding": 0.0}
        with torch.no_grad():
            for part in [parts[0], *parts]:  # the first one warms up
                began = time.perf_counter()
                view = centre_view(store, part, views, frames)
                between = time.perf_counter()
                pooled(encoder, view)
                ended = time.perf_counter()
                if part is parts[0] and not spent["encoding"]:
                    spent = {"sampling": 1e-9, "encoding": 1e-9}
                    continue
                spent["sampling"] += between - began
                spent["encoding"] += ended - between
        began = time.perf_counter()
        extract(encoder, store, clips, views, "mean")
        whole = time.perf_counter() - began
        name = f"features of {count} clips, {size}"
        rows.append({"benchmark": name, "measure": "clips/s", "value": count / whole})
        share = spent["sampling"] / (spent["sampling"] + spent["encoding"])
        rows.append({"benchmark": name, "measure": "share of loading and sampling", "value": share})
    return rows
