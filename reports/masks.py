"""The mask gallery: every strategy on one clip, so that a person sees what each hides.

A row is a strategy. On the left its mask, time patches along x and joints by part along y; on the right the body at
four moments, hidden joints hollow.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from methods.encoder import make_encoder
from methods.masking import MaskContext, all_strategies, mask_context, strategy
from reports.style import BLUE, titled
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
    figure = Figure(figsize=(WIDTH, ROW * len(strategies) + 1.0), layout="constrained")
    grid = figure.add_gridspec(len(strategies), 2 + MOMENTS, width_ratios=[1.4, 3.2, *[1.0] * MOMENTS])
    for row, chosen in enumerate(strategies):
        mask = strategy(chosen, config.masking)(context, Draws(seed, "gallery").fork("mask"))[0]
        label = figure.add_subplot(grid[row, 0])
        label.axis("off")
        label.text(
            1, 0.5, f"{chosen.replace('_', ' ')}\n{100 * mask.float().mean():.0f} % hidden", ha="right", va="center"
        )
        _draw_mask(figure.add_subplot(grid[row, 1]), mask[:, order], topology, last=row == len(strategies) - 1)
        for column in range(MOMENTS):
            patch = round(column * (len(mask) - 1) / (MOMENTS - 1))
            frame = patch * context.patch + context.patch // 2
            axes = figure.add_subplot(grid[row, 2 + column])
            _draw_body(axes, context.joints[0, frame], mask[patch], topology)
            if row == 0:
                axes.set_title(f"patch {patch + 1}", fontsize=8)
    low, high = config.masking.range()
    asked = f"{100 * low:.0f} %" if low == high else f"{100 * low:.0f}-{100 * high:.0f} %"
    titled(figure, f"What each masking strategy hides: {config.data.name}, clip {name}, asked for {asked}")
    return figure


def _draw_mask(axes: Axes, mask: Tensor, topology: Topology, last: bool) -> None:
    """Tokens as cells, joints by part; hidden ones light."""
    cells = (~mask).T.numpy()
    axes.pcolormesh(cells, cmap=ListedColormap([HIDDEN, SHOWN]), vmin=0, vmax=1, edgecolors="white", linewidth=0.4)
    axes.invert_yaxis()
    sizes = np.array([len(m) for m in topology.parts.values()])
    ends = sizes.cumsum()
    for end in ends[:-1]:
        axes.axhline(end, color="black", linewidth=0.8)
    axes.set_yticks(ends - sizes / 2, [p.replace("_", " ") for p in topology.parts], fontsize=5.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    if last:
        axes.set_xlabel("time patches", fontsize=8)


def _draw_body(axes: Axes, joints: Tensor, hidden: Tensor, topology: Topology) -> None:
    """The body from the front; hidden joints hollow, bones to them dotted."""
    x, y = joints[:, 0].numpy(), joints[:, 1].numpy()
    gone = hidden.numpy()
    for child, parent in topology.bones:
        lost = gone[child] or gone[parent]
        colour, width, style = ("#b0b0b0", 0.8, ":") if lost else (SHOWN, 1.4, "-")
        axes.plot(x[[child, parent]], y[[child, parent]], style, color=colour, linewidth=width, zorder=1)
    axes.scatter(x[gone], y[gone], s=7, facecolors="white", edgecolors="#909090", linewidths=0.6, zorder=2)
    axes.scatter(x[~gone], y[~gone], s=8, color=SHOWN, zorder=3)
    axes.set_aspect("equal")
    axes.axis("off")
