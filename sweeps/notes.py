"""What a person should know of a plan before they believe its table: cells that are one training under several names,
choices that change nothing, runs that end in their warm-up, and numbers of code that has changed since."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from methods.base import method_class
from methods.masking import all_strategies
from methods.trainer import steps_in
from sweeps.config import Config
from sweeps.identity import data_of
from sweeps.plan import Work, make_plan
from sweeps.records import Records


def notes(line: Sequence[str], config: Config, works: Sequence[Work], records: Records) -> list[str]:
    """A line for each.

    Args:
        line: the command line that the configuration and the works came from.
    """
    return [*_alike(works), *_idle(line, config, works), *_lengths(works), *_changed(works, records)]


def _alike(works: Sequence[Work]) -> list[str]:
    """Cells that no setting tells apart: what they change is not read by the method, or said otherwise on the line."""
    cells: dict[tuple, list[str]] = {}
    for work in works:
        if not work.raw and not work.needs:
            cells.setdefault((work.split, work.seed, work.pretraining), []).append(work.cell)
    found = dict.fromkeys(tuple(names) for names in cells.values() if len(names) > 1)
    return [f"{', '.join(names)}: one training, for nothing that these cells change is read" for names in found]


def _idle(line: Sequence[str], config: Config, works: Sequence[Work]) -> list[str]:
    """Choices that all cells, or some, would be the same without."""
    chosen = [override for override in line if override.partition("=")[0] in ("masking", "augment")]
    if config.budget != "clips":  # without them, trainings would be timed once more
        return []
    found = []
    trained = [work for work in works if not work.raw and method_class(work.config.method.name).trains]
    for override in chosen:
        others = {work.key for work in make_plan([o for o in line if o != override])[1]}
        same = dict.fromkeys(work.cell for work in trained if work.key in others)
        if same:
            cells = "" if len(same) == len({work.cell for work in trained}) else f" of {', '.join(same)}"
            why = "said otherwise there, not read, or so anyway"
            found.append(f"{override} changes nothing{cells}: {why}")
    return found


def _lengths(works: Sequence[Work]) -> list[str]:
    """Runs that end before their warm-up does, and batches in which a clip stands twice."""
    found: dict[str, None] = {}
    for work in works:
        train = work.config.train
        if work.raw or work.needs or work.config.encoder or not method_class(work.config.method.name).trains:
            continue
        clips = len(data_of(work.config)[1].train)
        steps = steps_in(train.length, train.batch, clips)
        if (warmup := steps_in(train.warmup, train.batch, clips, steps)) >= max(steps, 2):
            remedy = "say train.warmup='0.05 run', or train longer"
            found[f"{work.cell}: its warm-up takes {warmup} steps of {steps}; {remedy}"] = None
        if train.batch > clips:
            found[f"{work.cell}: a batch of {train.batch} shows some of {clips} training clips more than once"] = None
    return list(found)


def _changed(works: Sequence[Work], records: Records) -> list[str]:
    """Methods whose code is not what trained the runs that are there."""
    stale: dict[str, set[str]] = {}
    for work in works:
        told = {} if work.raw or work.needs else records.about(work.pretraining)
        if "source" in told and told["source"] != source_of(work.config):
            stale.setdefault(work.config.method.name, set()).add(work.pretraining)
    return [
        f"method {name} or its masking has changed since {len(runs)} run(s) here were trained, which are kept: if its "
        "numbers change too, raise `version` in its class, so that they are trained again"
        for name, runs in stale.items()
    ]


def source_of(config: Config) -> str:
    """Digest of the code of a method and its masking strategies, without imports, comments and docstrings. No part of
    an identity: what is only written otherwise computes the same."""
    method = method_class(config.method.name)
    used = [method, *(all_strategies()[name] for name in method.strategies(config.masking).values())]
    own = {c for cls in used for c in cls.__mro__ if c.__module__.startswith("methods.") and c.__name__ != "Method"}
    files = sorted({inspect.getfile(cls) for cls in own})
    return hashlib.sha256("".join(map(_code, files)).encode()).hexdigest()[:12]


@cache
def _code(file: str) -> str:
    tree = ast.parse(Path(file).read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
