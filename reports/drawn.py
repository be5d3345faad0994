"""Pictures of the page: what can be drawn from each plan's records and from its clips, by several processes.
They are kept beside the page and drawn again only where a plan, a record of it or the code that draws has changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from reports.page import Gap, Picture
from skeletons.errors import BadInput
from skeletons.whole import written_whole
from sweeps.records import Records

DPI = 110
# In the order of the page; those that a plan's records do not have are left out.
ON_PAGE = {
    "bars": "Accuracy of the cells, beside what was published",
    "pareto": "Accuracy against FLOPs",
    "curves": "Training curves",
    "labels": "Accuracy against the share of labels",
    "robustness": "Accuracy as test clips get worse",
    "classes": "Accuracy of each class",
    "confusion": "Confusion matrix",
    "embedding": "Map of the test clips",
    "neighbours": "Test clips and their nearest training clips",
    "attention": "What the last layer attends to",
}
OF_CLIPS = {
    "clips": "Clips, moving",
    "masks": "What each masking strategy hides",
    "augment": "Augmentations, aware and limited",
}

FEW = 12  # so many are drawn faster here than other processes start


def pictures(plans: Sequence[dict[str, Any]], records: Records, out: Path) -> tuple[list[Picture], list[Gap]]:
    """Every picture that these plans' records have, and those whose drawing failed."""
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    asked: list[tuple[dict[str, Any], str, Path]] = []
    for plan in plans:
        drawn_from = _digest(plan, records)
        asked += [(plan, figure, folder / f"{figure}-{plan['name']}-{drawn_from}.png") for figure in ON_PAGE]
    for data in dict.fromkeys(plan["data"] for plan in plans):
        drawn_from = hashlib.sha256(_code()).hexdigest()[:12]
        shown = {"name": data, "data": data}
        endings = {figure: "gif" if figure == "clips" else "png" for figure in OF_CLIPS}
        asked += [(shown, figure, folder / f"{figure}-{data}-{drawn_from}.{endings[figure]}") for figure in OF_CLIPS]
    todo = [(plan, str(records.root), figure, path) for plan, figure, path in asked if not path.exists()]
    if len(todo) > FEW:
        context = get_context("forkserver")
        context.set_forkserver_preload(["reports.figures"])
        with ProcessPoolExecutor(min(os.cpu_count() or 1, 8), context) as pool:
            failed = list(pool.map(_draw, *zip(*todo), chunksize=4))
    else:
        failed = [_draw(*one) for one in todo]
    current = {path for *_, path in asked}
    for path in folder.iterdir():  # of records or code that have changed
        if path.suffix in (".png", ".gif") and path not in current:
            path.unlink(missing_ok=True)
    found = []
    for plan, figure, path in asked:
        if path.exists() and (content := path.read_bytes()):
            if figure in OF_CLIPS:
                title = f"{OF_CLIPS[figure]}: {plan['data']}"
                found.append(Picture(f"{figure}-{plan['name']}", title, content, _size(content)))
            else:
                found.append(
                    Picture(f"{figure}-{plan['name']}", ON_PAGE[figure], content, _size(content), plan["name"])
                )
    said = zip(todo, failed)
    return found, [Gap("Pictures", f"{figure} of {plan['name']}", why) for (plan, _, figure, _), why in said if why]


def _size(content: bytes) -> tuple[int, int]:
    """Width and height, from the first bytes of a PNG or GIF."""
    width, height = (
        struct.unpack(">II", content[16:24]) if content[1:4] == b"PNG" else struct.unpack("<HH", content[6:10])
    )
    return width, height


def _draw(plan: dict[str, Any], root: str, figure: str, path: Path) -> str:
    """Draw one; returns why it failed, or "". What a plan's records do not have leaves an empty file."""
    from PIL import Image

    from reports.figures import FROM_CLIPS, FROM_RECORDS, MOVING
    from sweeps.config import compose

    content, plain = io.BytesIO(), io.BytesIO()
    try:
        with redirect_stdout(io.StringIO()):
            if path.suffix == ".gif":
                with written_whole(path) as temporary:
                    MOVING[figure](compose([f"data={plan['data']}"]), {"figure": figure, "clips": "3"}, temporary)
                return ""
            if figure in OF_CLIPS:
                drawn = FROM_CLIPS[figure](compose([f"data={plan['data']}"]), {"figure": figure})
            else:
                drawn = FROM_RECORDS[figure](plan, Records(root), {})
            drawn.savefig(plain, dpi=DPI, format="png")
        image = Image.open(plain).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
        image.save(content, "png")
    except BadInput:
        pass
    except Exception as error:  # one picture must not take the page with it, which says what failed
        return f"{type(error).__name__}: {error}"
    with written_whole(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return ""


def _digest(plan: dict[str, Any], records: Records) -> str:
    """Of all that a plan's pictures are drawn from."""
    found = hashlib.sha256(_code() + json.dumps(plan, sort_keys=True).encode())
    for work in plan["works"]:
        run, judged = work["pretraining"], work["judgements"].values()
        files = [records.run(run) / "metrics.jsonl", *(records.result_file(run, j) for j in judged)]
        for path in files:
            try:
                about = path.stat()
                found.update(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode())
            except OSError:
                found.update(b"none")
    return found.hexdigest()[:12]


@cache
def _code() -> bytes:
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.digest()
