"""`python reports/figures.py figure=NAME [KEY=VALUE ...]`: pictures as PNG and PDF in reports/out (or out=DIR, or
$SKELBENCH_OUT), all in the style of reports/style.py.

From clips; settings are written as for sweeps/run.py:
figure=masks       what each masking strategy hides, on real skeletons   (clip=NAME chooses the clip, seed=N the draw)
figure=augment     augmentations, aware of the body beside limited       (the same)
figure=clips       clips as skeletons over time; as an animated GIF too  (clips=6 of them, seed=N, class=NAME; clip=a,b)

From the records of the newest plan that has what it takes [plan=NAME|table=stm data=.. scale=.. setting=..] [runs=DIR]:
figure=pareto      accuracy over FLOPs, of inference and of training     (cell=a,b; protocol=NAME; published ones apart)
figure=bars        cells, and differences to the reference cell          (the same, and to=NAME; published ones hollow)
figure=curves      loss, online 1-NN and rank over clips seen            (cell=a,b)
figure=labels      accuracy over the share of labels                     (cell=a,b; needs protocol=semi)
figure=embedding   a map of the test clips, cells side by side           (cell=a,b; needs protocol=embedding)
figure=neighbours  test clips and their nearest training clips, drawn    (cell=NAME; needs protocol=embedding)
figure=confusion   which class the clips of each class were given        (cell=NAME, protocol=linear_fast|retrieval|...)
figure=classes     accuracy of each class, and the difference to a cell  (the same, and to=NAME)
figure=attention   what the last layer attends to, on the body   (cell=NAME, class=a,b; needs protocol=embedding)
figure=robustness  accuracy as test clips get worse, cells together      (cell=a,b; needs protocol=robustness)
All take split=NAME and seed=N too. FLOPs are counted once for each configuration, which takes a second or less, and
kept in runs/flops.json.

From a study of sweeps/tune.py [runs=DIR]:
figure=tuning      its history, the curves that pruned, and what mattered   (study=NAME; by default the newest)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder's own files must not stand in for packages of the same name

from matplotlib.figure import Figure

from reports.attention import attention_map
from reports.augmentations import augmentation_gallery
from reports.bars import ablation_bars
from reports.classes import class_accuracy
from reports.confusion import confusion_matrix
from reports.curves import training_curves
from reports.embedding import embedding_map
from reports.labels import label_efficiency
from reports.make import chosen_plans
from reports.masks import mask_gallery
from reports.pareto import pareto
from reports.recorded import clip_animation, clip_gallery
from reports.robustness import robustness_curves
from reports.strips import neighbour_strips
from reports.tuning import tuning_picture
from skeletons.errors import BadInput, command, unknown
from skeletons.whole import written_whole
from sweeps.composing import compose
from sweeps.config import Config
from sweeps.records import Records, out_folder

FROM_CLIPS: dict[str, Callable[[Config, dict[str, str]], Figure]] = {
    "masks": mask_gallery,
    "clips": clip_gallery,
    "augment": augmentation_gallery,
}
MOVING: dict[str, Callable[[Config, dict[str, str], Path | BinaryIO], None]] = {"clips": clip_animation}
FROM_RECORDS: dict[str, Callable[[dict[str, Any], Records, dict[str, str]], Figure]] = {
    "embedding": embedding_map,
    "neighbours": neighbour_strips,
    "confusion": confusion_matrix,
    "classes": class_accuracy,
    "robustness": robustness_curves,
    "pareto": pareto,
    "bars": ablation_bars,
    "curves": training_curves,
    "labels": label_efficiency,
    "attention": attention_map,
}
FROM_STUDIES: dict[str, Callable[[Records, dict[str, str]], tuple[Figure, str]]] = {"tuning": tuning_picture}
OWN = ("figure", "out", "clip", "seed", "clips", "class")
PLAN = ("plan", "table", "data", "scale", "setting")
PART = ("cell", "to", "class", "protocol", "split", "seed")


def from_clips(arguments: Sequence[str]) -> tuple[Figure, str]:
    """A picture that settings and clips make, and the name of its file."""
    config, own = _asked(arguments)
    drawn = FROM_CLIPS[own["figure"]](config, own)
    name = "-".join([own["figure"], config.data.name, *([own["class"]] if "class" in own else [])])
    return drawn, re.sub(r"[^\w.,-]+", "_", name)


def _asked(arguments: Sequence[str]) -> tuple[Config, dict[str, str]]:
    """The settings of the command line, and what is the picture's own."""
    own = {k: v for k, _, v in (a.partition("=") for a in arguments) if k in OWN}
    return compose([a for a in arguments if a.partition("=")[0] not in OWN]), own


def from_records(arguments: Sequence[str]) -> tuple[Figure, str]:
    """A picture of the newest plan that matches and has the results, and the name of its file.

    Raises:
        BadInput: an unknown argument, or no plan has them: of the newest one, what is missing.
    """
    wanted = dict(a.partition("=")[::2] for a in arguments)
    for key in wanted:
        if key not in (known := ("figure", "out", "runs", *PLAN, *PART)):
            raise unknown("argument", key, known)
    records = Records(wanted.get("runs", "runs"))
    plans = chosen_plans(records, {k: v for k, v in wanted.items() if k in PLAN})
    reason: BadInput | None = None
    for plan in sorted(plans, key=lambda p: p["written"], reverse=True):
        try:
            drawn = FROM_RECORDS[wanted["figure"]](plan, records, wanted)
        except BadInput as error:
            reason = reason or error
            continue
        name = "-".join([wanted["figure"], plan["name"], *(f"{wanted[k]}" for k in PART if k in wanted)])
        return drawn, re.sub(r"[^\w.,-]+", "_", name)
    assert reason is not None
    raise reason


def main(arguments: Sequence[str]) -> int:
    """Draw and write a figure; returns the exit status."""
    if any(a in ("-h", "--help") for a in arguments):
        print(__doc__)
        return 0
    given = dict(a.partition("=")[::2] for a in arguments)
    known = (*FROM_CLIPS, *FROM_RECORDS, *FROM_STUDIES)
    if "figure" not in given:
        raise BadInput(f"say which figure: figure={'|'.join(known)}")
    if given["figure"] not in known:
        raise unknown("figure", given["figure"], known)
    if given["figure"] in FROM_STUDIES:
        drawn, name = FROM_STUDIES[given["figure"]](Records(given.get("runs", "runs")), given)
    else:
        drawn, name = (from_clips if given["figure"] in FROM_CLIPS else from_records)(arguments)
    out = Path(given.get("out") or out_folder())
    out.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "pdf"):
        path = out / f"{name}.{suffix}"
        drawn.savefig(path, dpi=150, metadata={"CreationDate": None} if suffix == "pdf" else None)
        print(f"written: {path}")
    if given["figure"] in MOVING:
        with written_whole(out / f"{name}.gif") as temporary:
            MOVING[given["figure"]](*_asked(arguments), temporary)
        print(f"written: {out / name}.gif")
    return 0


if __name__ == "__main__":
    command(main)
