"""The mask gallery: every strategy on one clip, so that a person sees what each hides.

A row is a strategy. On the left its mask, time patches along x and joints by part along y; on the right the body at
four moments, hidden joints hollow.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from methods.encoder import make_encoder
from methods.masking import MaskContext, all_strategies, mask_context, strategy
from reports.bodies import from_the_front
from reports.style import BLUE, TICK, titled
from skeletons.clips import Clips
from skeletons.errors import unknown
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, centre_view
from skeletons.streams import JOINT
from skeletons.topology import Topology
from sweeps.config import Config
from sweeps.identity import data_of

MOMENTS = 4
SHOWN, HIDDEN = BLUE, "#d9d9d9"  # legible in grey and to the colour-blind
ROW, WIDTH = 0.95, 11.0  # inches


def context_of(config: Config, clip: str | None, seed: int) -> tuple[MaskContext, Topology, str]:
    """One clip's evaluation view as strategies see it (embeddings: an untrained encoder's), its topology and name."""
    data, _ = data_of(config)
    names = [str(n) for n in data.table.get("clip", np.arange(len(data)))]
    if clip is not None and clip not in names:
        raise unknown("clip", clip, names[:20])
    row = names.index(clip) if clip is not None else liveliest(data)
    view = centre_view(ClipTensors(data), torch.tensor([row]), config.views, stream=JOINT)  # bodies are drawn
    torch.manual_seed(Draws(seed, "weights").torch_seed())
    encoder = make_encoder(config.backbone, data.topology, config.views.frames)
    for part in ("joints", "observed", "present"):
        setattr(view, part, getattr(view, part)[:, :1])
    ratio = config.masking.range()
    draws = Draws(seed, "gallery")
    context = mask_context(view, encoder.patch, data.topology, ratio, draws, encoder.embeddings)
    return context, data.topology, names[row]


def liveliest(data: Clips) -> int:
    """The clip of one person, seen throughout, that moves most: guided masks have most to show there."""
    best, row = -1.0, 0
    for i, (a, b) in enumerate(zip(data.offsets[:-1], data.offsets[1:])):
        if data.present[i].sum() != 1 or b - a < 16 or not data.observed[a:b, 0].all():
            continue
        moved = float(np.abs(np.diff(data.frames[a:b, 0], axis=0)).mean())
        if moved > best:
            best, row = moved, i
    return row


def mask_gallery(config: Config, wanted: dict[str, str]) -> Figure:
    """One row for every strategy but `none`.

    Args:
        wanted: `clip` and `seed`, where the command line has them.

    Raises:
        BadInput: an unknown clip.
    """
    seed = int(wanted.get("seed", 0))
    context, topology, name = context_of(config, wanted.get("clip"), seed)
    known = all_strategies()
    strategies = sorted((s for s in known if s != "none"), key=lambda s: sorted(known[s].needs, reverse=True))
    order = [j for members in topology.parts.values() for j in members]
    patches = np.linspace(0, context.joints.shape[1] // context.patch - 1, MOMENTS).round().astype(int)
    bodies, step = _bodies(context, topology, patches)
    figure = Figure(figsize=(WIDTH, ROW * len(strategies) + 1.0), layout="constrained")
    panels = figure.subplots(len(strategies), 2, width_ratios=[4, 3])
    for (tokens, shown), chosen in zip(panels, strategies):
        mask = strategy(chosen, config.masking)(context, Draws(seed, "gallery").fork("mask"))[0]
        _draw_mask(tokens, mask[:, order], topology)
        label = f"{chosen.replace('_', ' ')}\n{100 * mask.float().mean():.0f} % hidden"
        tokens.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
        _draw_bodies(shown, bodies, mask[patches].numpy(), topology)
        shown.set(xlim=(-step / 2, step * (MOMENTS - 0.5)), xticks=[], yticks=[])
        shown.set_aspect("equal")
        shown.spines[:].set_visible(False)
    panels[-1][0].set_xlabel("time patches", fontsize=TICK)
    top = panels[0][1]
    top.xaxis.tick_top()
    top.set_xticks(step * np.arange(MOMENTS), [f"patch {patch + 1}" for patch in patches])
    top.tick_params(length=0)
    low, high = config.masking.range()
    asked = f"{100 * low:.0f} %" if low == high else f"{100 * low:.0f}-{100 * high:.0f} %"
    titled(figure, f"What each masking strategy hides: {config.data.name}, clip {name}, asked for {asked}")
    return figure


def _draw_mask(axes: Axes, mask: Tensor, topology: Topology) -> None:
    """Tokens as cells, joints by part; hidden ones light."""
    cells = (~mask).T.numpy()
    axes.pcolormesh(cells, cmap=ListedColormap([HIDDEN, SHOWN]), vmin=0, vmax=1, edgecolors="white", linewidth=0.4)
    axes.invert_yaxis()
    sizes = np.array([len(m) for m in topology.parts.values()])
    ends = sizes.cumsum()
    axes.hlines(ends[:-1], 0, len(mask), color="black", linewidth=0.8)
    axes.set_yticks(ends - sizes / 2, [p.replace("_", " ") for p in topology.parts], fontsize=5.5)
    axes.set_xticks([])
    axes.tick_params(length=0)


def _bodies(context: MaskContext, topology: Topology, patches: np.ndarray) -> tuple[np.ndarray, float]:
    """The body in the middle of some patches, as one who looks at its front sees it: (moment, joint, 2), each moment
    to the right of the one before, and by how much."""
    frames = patches * context.patch + context.patch // 2
    joints = context.joints[0, frames].numpy()
    points = from_the_front(joints[:, None], np.ones((*joints.shape[:1], 1, joints.shape[1]), bool), topology)[:, 0]
    left, right = points[..., 0].min(1), points[..., 0].max(1)
    points[..., 0] -= (left + right)[:, None] / 2  # who walks stays in the picture
    step = max(1.1 * float((right - left).max()), 0.8 * float(np.ptp(points[..., 1])))
    points[..., 0] += step * np.arange(len(patches))[:, None]
    return points, step


def _draw_bodies(axes: Axes, points: np.ndarray, gone: np.ndarray, topology: Topology) -> None:
    """Hidden joints hollow, bones to them dotted.

    Args:
        points: (moment, joint, 2).
        gone: bool (moment, joint).
    """
    child, parent = np.array(topology.bones).T
    bones, lost = points[:, np.stack([child, parent], 1)], gone[:, child] | gone[:, parent]
    axes.add_collection(LineCollection(list(bones[lost]), colors="#b0b0b0", linewidths=0.8, linestyles=":", zorder=1))
    axes.add_collection(LineCollection(list(bones[~lost]), colors=SHOWN, linewidths=1.4, zorder=1))
    axes.scatter(
        points[gone, 0], points[gone, 1], s=7, facecolors="white", edgecolors="#909090", linewidths=0.6, zorder=2
    )
    axes.scatter(points[~gone, 0], points[~gone, 1], s=8, color=SHOWN, zorder=3)
