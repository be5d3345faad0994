"""Pictures of the page: what can be drawn from each plan's records and from its clips, by several processes.
They are kept beside the page and drawn again only where a plan, a record of it or the code that draws has changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.page import Gap, Picture
from reports.spent import config_of
from skeletons.errors import BadInput
from skeletons.whole import written_whole
from sweeps.records import Records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        for data, plan in {plan["data"]: plan for plan in reversed(plans)}.items():
            shown = {"name": data, "data": data, "from": _source(plan, records)}
            digest = hashlib.sha256(_code() + json.dumps(shown).encode()).hexdigest()[:12]
            for figure in OF_CLIPS:
                ending = "gif" if figure == "clips" else "png"
                self.asked.append(Asked(shown, figure, folder / f"{figure}-{data}-{digest}.{ending}"))
        current = {asked.path: asked.path.name.rpartition("-")[0] for asked in self.asked}
        for path in folder.iterdir():  # the same of records or code that have changed since
            if path not in current and path.name.rpartition("-")[0] in current.values():
                path.unlink(missing_ok=True)
        self.root = str(records.root)
        self.todo = _in_order([asked for asked in self.asked if not asked.path.exists()])
        self.pool: ProcessPoolExecutor | None = None
        if len(self.todo) > FEW:
            context = get_context("forkserver")
            context.set_forkserver_preload(["reports.figures"])
            self.pool = ProcessPoolExecutor(min(os.cpu_count() or 1, 8), context)
            self.drawn = [self.pool.submit(_draw, asked, self.root) for asked in self.todo]

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)  # interrupted, this process would leave its drawers behind

    def finished(self) -> tuple[list[Picture], list[Gap]]:
        """The pictures, in the order of the page, and those whose drawing failed."""
        if self.pool is None:
            reasons = [_draw(asked, self.root) for asked in self.todo]
        else:
            reasons = [_result(one) for one in self.drawn]
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


def _result(drawn: Future[str]) -> str:
    """Why a picture failed, or ""."""
    try:
        return drawn.result()
    except BrokenProcessPool:
        return "a process that draws was killed (out of memory?); the same command draws the rest"


def _source(plan: dict[str, Any], records: Records) -> list[str]:
    """Overrides that name the file or folder which a plan's clips came from, where its records say one."""
    for work in plan["works"]:
        if config := config_of(records, work["pretraining"]):
            said = {"data.file": config.data.file, "data.root": config.data.root}
            return [f"{key}={value}" for key, value in said.items() if value]
    return []


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
    try:
        with redirect_stdout(io.StringIO()):
            content = _of_clips(asked) if asked.figure in OF_CLIPS else _of_records(asked, Records(root))
        with written_whole(asked.path) as temporary:
            temporary.write_bytes(content)
    except BadInput as error:  # e.g. the recordings are not here
        return str(error)
    except Exception as error:  # one picture must not take the page with it, which says what failed
        return f"{type(error).__name__}: {error}"
    return ""


def _of_clips(asked: Asked) -> bytes:
    from reports.figures import FROM_CLIPS, MOVING
    from sweeps.composing import compose

    config, moving = compose([f"data={asked.plan['data']}", *asked.plan["from"]]), io.BytesIO()
    if asked.path.suffix == ".gif":
        MOVING[asked.figure](config, {"figure": asked.figure, "clips": "3"}, moving)
        return moving.getvalue()
    return _as_png(FROM_CLIPS[asked.figure](config, {"figure": asked.figure}))


def _of_records(asked: Asked, records: Records) -> bytes:
    from reports.figures import FROM_RECORDS

    try:
        return _as_png(FROM_RECORDS[asked.figure](asked.plan, records, {}))
    except BadInput:
        return b""


def _as_png(figure: Figure) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas, content = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()  # once; savefig would draw twice
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, method=Image.Quantize.FASTOCTREE).save(content, "png")
    return content.getvalue()


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
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *here.parent.glob("methods/masking/*.py")]):
        found.update(path.read_bytes())
    return found.digest()
