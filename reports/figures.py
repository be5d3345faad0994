"""`python reports/figures.py figure=masks [data=utdmhad] [KEY=VALUE ...]`: pictures as PNG and PDF in reports/out (or
out=DIR, or $SKELBENCH_OUT). Settings are written as for sweeps/run.py.

figure=masks     what each masking strategy hides, on real skeletons   (clip=NAME chooses the clip, seed=N the draw)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from matplotlib.figure import Figure

from reports.masks import mask_gallery
from skeletons.errors import BadInput, command, unknown
from sweeps.config import Config, compose

FIGURES: dict[str, Callable[[Config, dict[str, str]], Figure]] = {"masks": mask_gallery}
OWN = ("figure", "out", "clip", "seed")


def main(arguments: Sequence[str]) -> int:
    """Draw and write a figure; returns the exit status."""
    if any(a in ("-h", "--help") for a in arguments):
        print(__doc__)
        return 0
    own = {k: v for k, _, v in (a.partition("=") for a in arguments) if k in OWN}
    if "figure" not in own:
        raise BadInput(f"say which figure: figure={'|'.join(FIGURES)}")
    if own["figure"] not in FIGURES:
        raise unknown("figure", own["figure"], FIGURES)
    config = compose([a for a in arguments if a.partition("=")[0] not in OWN])
    drawn = FIGURES[own["figure"]](config, own)
    out = Path(own.get("out") or os.environ.get("SKELBENCH_OUT") or ROOT / "reports" / "out")
    out.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "pdf"):
        path = out / f"{own['figure']}-{config.data.name}.{suffix}"
        drawn.savefig(path, dpi=150)
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    command(main)
