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
from typing import Any, NamedTuple

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


class Asked(NamedTuple):
    """A picture to be drawn from a plan, or from the clips of its data."""

    plan: dict[str, Any]
    figure: str
    path: Path


class Drawing:
    """Every picture that some plans' records have, drawn while this process does something else.

    Args:
        plans: of the page.
        out: where the page will be.
    """

    def __init__(self, plans: Sequence[dict[str, Any]], records: Records, out: Path):
        folder = out / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        self.asked: list[Asked] = []
        for plan in plans:
            digest = _digest(plan, records)
            self.asked += [Asked(plan, figure, folder / f"{figure}-{plan['name']}-{digest}.png") for figure in ON_PAGE]
        for data in dict.fromkeys(plan["data"] for plan in plans):
            digest, shown = hashlib.sha256(_code()).hexdigest()[:12], {"name": data, "data": data}
            for figure in OF_CLIPS:
                ending = "gif" if figure == "clips" else "png"
                self.asked.append(Asked(shown, figure, folder / f"{figure}-{data}-{digest}.{ending}"))
        current = {asked.path for asked in self.asked}
        for path in folder.iterdir():  # of records or code that have changed
            if path.suffix in (".png", ".gif") and path not in current:
                path.unlink(missing_ok=True)
        self.root = str(records.root)
        self.todo = _in_order([asked for asked in self.asked if not asked.path.exists()])
        self.pool: ProcessPoolExecutor | None = None
        if len(self.todo) > FEW:
            context = get_context("forkserver")
            context.set_forkserver_preload(["reports.figures"])
            self.pool = ProcessPoolExecutor(min(os.cpu_count() or 1, 8), context)
            self.drawn = [self.pool.submit(_draw, asked, self.root) for asked in self.todo]

    def finished(self) -> tuple[list[Picture], list[Gap]]:
        """The pictures, in the order of the page, and those whose drawing failed."""
        if self.pool is None:
            reasons = [_draw(asked, self.root) for asked in self.todo]
        else:
            reasons = [one.result() for one in self.drawn]
            self.pool.shutdown()
        said = zip(self.todo, reasons)
        gaps = [Gap("Pictures", f"{asked.figure} of {asked.plan['name']}", why) for asked, why in said if why]
        found = []
        for plan, figure, path in self.asked:
            if not path.exists() or not (content := path.read_bytes()):
                continue
            title, table = ON_PAGE.get(figure, ""), plan["name"]
            if figure in OF_CLIPS:
                title, table = f"{OF_CLIPS[figure]}: {plan['data']}", ""
            found.append(Picture(f"{figure}-{plan['name']}", title, content, _size(content), table))
        return found, gaps


def _in_order(todo: list[Asked]) -> list[Asked]:
    """Those of clips first, which take longest; and soon one that counts FLOPs, which the like of it then know."""
    order = [*OF_CLIPS, *ON_PAGE]
    todo = sorted(todo, key=lambda asked: order.index(asked.figure))
    if counting := [asked for asked in todo if asked.figure == "pareto"]:
        todo.remove(counting[0])
        todo.insert(1, counting[0])
    return todo


def _size(content: bytes) -> tuple[int, int]:
    """Width and height, from the first bytes of a PNG or GIF."""
    width, height = (
        struct.unpack(">II", content[16:24]) if content[1:4] == b"PNG" else struct.unpack("<HH", content[6:10])
    )
    return width, height


def _draw(asked: Asked, root: str) -> str:
    """Draw one; returns why it failed, or "". What a plan's records do not have leaves an empty file."""
    plan, figure, path = asked
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    from reports.figures import FROM_CLIPS, FROM_RECORDS, MOVING
    from sweeps.config import compose

    content = io.BytesIO()
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
            drawn.set_dpi(DPI)
            canvas = FigureCanvasAgg(drawn)
            canvas.draw()  # once; savefig would draw twice
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        image.quantize(256, method=Image.Quantize.FASTOCTREE).save(content, "png")
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
