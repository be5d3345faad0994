"""Verdicts: what the papers claim (published/claims.csv), tried on what was measured here.

A claim names two cells of an ablation and which of them should be better. The difference is paired over seeds; its
95 % interval decides, from three seeds and `scale=small` upwards, never on synthetic clips. A verdict speaks of this
data at this scale: other data, shorter training and smaller encoders neither prove nor refute what a paper measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.claims import Claim, claims
from reports.formats import Cell, Source, Table
from reports.intervals import LEVEL, Estimate, difference, estimate
from reports.provenance import run_of
from reports.tables import Results, folds_together, label_of, results_of
from sweeps.records import Records

REPRODUCED, UNDECIDED, CONTRADICTED, UNTESTED = "reproduced", "not decided", "contradicted", "not tested"
RANK = (CONTRADICTED, UNTESTED, UNDECIDED, REPRODUCED)  # to sort by
SEEDS = 3  # fewer decide nothing
SYNTHETIC = ("demo", "demo20")  # made up by this project, so no evidence about people
LINEAR = ("linear_fast", "linear")
CLAIMED_REDUCTION = "published_parameter_reduction"
TEACHER = "@teacher"  # in the place of a cell: the encoder that the other cell's student was distilled from


ORDER = [claim.id for claim in claims()]


@dataclass(frozen=True)
class Verdict:
    """A claim on one split by one protocol.

    Attributes:
        word: one of the four above.
        reason: for it, in words.
        gap: the measured difference a - b in points; None where a cell has no result.
        p: of Student's t, two-sided, that the difference is 0 (keeps: is -margin); None without an interval over seeds.
        runs: the results behind it.
    """

    claim: Claim
    plan: dict[str, Any]
    split: str
    protocol: str
    word: str
    reason: str
    gap: Estimate | None = None
    p: float | None = None
    runs: tuple[dict[str, Any], ...] = ()

    @property
    def printed(self) -> str:
        """The word, with the data and scale it is about."""
        decided = self.word in (REPRODUCED, CONTRADICTED)
        return f"{self.word} on {self.plan['data']}, {self.plan['scale']}" if decided else self.word


def decide(claim: Claim, gap: Estimate, scale: str, data: str) -> tuple[str, str]:
    """The verdict on a measured difference: (word, reason)."""
    if scale == "demo" or data in SYNTHETIC:
        return UNDECIDED, "demo scale" if scale == "demo" else "synthetic clips"
    if gap.seeds < SEEDS or gap.how != "seeds":
        return UNDECIDED, f"{gap.seeds} seed{'s' * (gap.seeds != 1)}, {SEEDS} are needed"
    bound = -claim.margin if claim.test == "keeps" else 0.0
    if gap.low > bound:
        return REPRODUCED, f"the interval lies above {bound:g}"
    if gap.high < bound:
        return CONTRADICTED, f"the interval lies below {bound:g}"
    return UNDECIDED, f"the interval holds {bound:g}"


def p_value(gap: Estimate, bound: float = 0.0) -> float | None:
    """Two-sided p of Student's t over seeds that the difference is `bound`; None where there is no such interval."""
    if gap.how != "seeds":
        return None
    if gap.half == 0:
        return float(gap.mean == bound)
    from scipy.stats import t

    error = gap.half / t.ppf((1 + LEVEL) / 2, gap.seeds - 1)
    return float(2 * t.sf(abs(gap.mean - bound) / error, gap.seeds - 1))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's p-values, corrected for all of these being tested."""
    found, most = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        most = found[i] = max(most, min(1.0, (len(values) - rank) * values[i]))
    return found


def verdicts_of(plan: dict[str, Any], records: Records) -> list[Verdict]:
    """Every claim that this plan's ablation tests, on each split."""
    asked = [claim for claim in claims() if plan["ablation"] and claim.ablation == plan["ablation"]]
    if not asked:
        return []
    splits = list(dict.fromkeys(work["split"] for work in plan["works"]))
    results, splits = folds_together(results_of(plan, records), splits)
    judged = list(dict.fromkeys(p for work in plan["works"] for p in work["judgements"]))
    return [
        _verdict(claim, plan, results, split, protocol)
        for claim in asked
        for protocol in _protocols(claim, judged) or [claim.protocol]
        for split in splits
    ]


def _protocols(claim: Claim, judged: list[str]) -> list[str]:
    """Keys of a plan that the claim's protocol stands for: "linear" for one linear probe, the fast one first; a
    transfer for every target; where there is one pooling only, that."""
    for wanted in (claim.protocol, claim.protocol.removesuffix(" native")):
        kind, _, how = wanted.partition(" ")
        if kind == "transfer":
            found = [p for p in judged if _without_target(p) == (kind, how)]
        elif kind == "linear":
            found = sorted((p for p in judged if _without_target(p) in ((k, how) for k in LINEAR)), key=_probe)[:1]
        else:
            found = [p for p in judged if p == wanted]
        if found:
            return found
    return []


def _probe(protocol: str) -> int:
    return LINEAR.index(_without_target(protocol)[0])


def _without_target(protocol: str) -> tuple[str, str]:
    kind, _, how = protocol.partition(" ")
    return kind.partition(":")[0], how


def _verdict(claim: Claim, plan: dict[str, Any], results: Results, split: str, protocol: str) -> Verdict:
    these = results.get((claim.a, split, protocol), {})
    those = these if claim.b == TEACHER else results.get((claim.b, split, protocol), {})
    gap = _behind_the_teacher(these) if claim.b == TEACHER else difference(these, those)
    if gap is None:
        holes = dict.fromkeys(cell for cell, found in ((claim.a, these), (claim.b, those)) if not found)
        why = f"no result of {' and '.join(holes)}" if holes else "no seed that both cells have"
        return Verdict(claim, plan, split, protocol, UNTESTED, why)
    target = protocol.partition(":")[2].partition(" ")[0].partition("@")[0] if protocol.startswith("transfer:") else ""
    word, reason = decide(claim, gap, plan["scale"], target if target in SYNTHETIC else plan["data"])
    if claim.b == TEACHER:
        word, reason = _as_small_as_claimed(word, reason, these)
    sides = [(claim.a, these)] + ([(claim.b, those)] if claim.b != TEACHER else [])
    runs = [{"cell": cell, **run_of(result)} for cell, side in sides for result in side.values()]
    return Verdict(claim, plan, split, protocol, word, reason, gap, p_value(gap, -claim.margin), tuple(runs))


def _behind_the_teacher(students: dict[int, dict]) -> Estimate | None:
    """A student's accuracy minus its teacher's, seed by seed."""
    gaps = [np.array([(r["top1"] - r["teacher_top1"]) / 100]) for r in students.values() if "teacher_top1" in r]
    return estimate(gaps) if gaps else None


def _as_small_as_claimed(word: str, reason: str, students: dict[int, dict]) -> tuple[str, str]:
    """A verdict on a student that is smaller or larger than the published one: a smaller one cannot contradict the
    claim, a larger one not reproduce it."""
    known = [r for r in students.values() if "parameter_reduction" in r]
    if not known:
        return word, reason
    fewer, claimed = (sum(r[k] for r in known) / len(known) for k in ("parameter_reduction", CLAIMED_REDUCTION))
    said = f"{fewer:.1f} % fewer parameters, claimed {claimed:.1f}"
    unfair = (word == CONTRADICTED and fewer > claimed + 1) or (word == REPRODUCED and fewer < claimed - 1)
    return (UNDECIDED, f"{reason}, but {said}") if unfair else (word, f"{reason}; {said}")


def verdict_tables(records: Records, plans: Sequence[dict[str, Any]]) -> list[Table]:
    """A table for each data set, stream, scale and setting that has plans which test a claim; above them, where there
    are several, one that sets their verdicts side by side.

    Args:
        plans: the newest of each kind.
    """
    groups: dict[tuple[str, str, str, str], list[Verdict]] = {}
    for plan in plans:
        key = (plan["data"], plan.get("stream", "joint"), plan["scale"], plan["setting"])
        groups.setdefault(key, []).extend(verdicts_of(plan, records))
    groups = {key: sorted(found, key=lambda v: ORDER.index(v.claim.id)) for key, found in groups.items() if found}
    tables = [_at_a_glance(groups)] if len(groups) > 1 else []
    for (data, stream, scale, setting), found in groups.items():
        told = f"data {data}, " + (f"{stream} stream, " if stream != "joint" else "")
        name = "-".join(["verdicts", data, *([stream] if stream != "joint" else []), scale, setting])
        table = _table(found, name, f"Verdicts: {told}scale {scale}, setting {setting}")
        table.tags = {"data": data, "scale": scale, "setting": setting, "stream": stream}
        tables.append(table)
    return tables


def _at_a_glance(groups: dict[tuple[str, str, str, str], list[Verdict]]) -> Table:
    """Claims as rows, data as columns, words as cells."""
    rows: list[list[str | Cell]] = []
    for claim in claims():
        row: list[str | Cell] = [claim.claim, claim.printed]
        for found in groups.values():
            mine = [v for v in found if v.claim.id == claim.id]
            said = [f"{v.word} ({v.gap.mean:+.1f})" if v.gap else v.word for v in mine]
            row.append(Cell(" / ".join(said) or "-", max((RANK.index(v.word) for v in mine), default=None)))
        if any(str(cell) != "-" for cell in row[2:]):
            rows.append(row)
    heads = [
        " ".join([d, scale, *(x for x in (stream, how) if x not in ("joint", "paper"))])
        for d, stream, scale, how in groups
    ]
    notes = [
        "each column is about its own data, scale and setting; in brackets the measured difference in points, of each "
        "split or target; the rule, intervals and numbers of seeds stand in the tables below",
        "published: the difference on NTU-60 X-Sub / X-View (transfer: to PKU-MMD II); * which cell was inferred; + "
        "from secondary notes",
    ]
    table = Table("verdicts", "Verdicts at a glance", ["claim", "published", *heads], rows, notes, section="Verdicts")
    named = ("data", "stream", "scale", "setting")
    table.column_tags = [{}, {}, *(dict(zip(named, key)) for key in groups)]
    return table


COLUMNS = ["claim", "verdict", "difference", "published", "because", "seeds", "p", "p, Holm", "tested by", "source"]


def _table(found: list[Verdict], name: str, title: str) -> Table:
    corrected = dict(
        zip([i for i, v in enumerate(found) if v.p is not None], holm([v.p for v in found if v.p is not None]))
    )
    several = len({v.split for v in found}) > 1
    rows: list[list[str | Cell]] = []
    sources = {}
    for i, v in enumerate(found):
        source = f"verdict-{v.claim.id}-{v.split}-{v.protocol}".replace(" ", "-")
        sources[source] = _source(v)
        by = f"{v.claim.ablation}: {v.claim.a} - {v.claim.b.removeprefix('@')}, {label_of(v.plan, v.protocol)}"
        gap = v.gap
        shown = f"{gap.mean:+.1f}" + (f" ±{gap.half:.1f}" if gap.how != "none" else "") if gap else "missing"
        rows.append(
            [
                v.claim.claim,
                Cell(v.printed, RANK.index(v.word), source=source),
                Cell(shown, gap.mean if gap else None, source=source, missing="" if gap else v.plan["command"]),
                v.claim.printed,
                v.reason,
                str(gap.seeds) if gap else "0",
                Cell(_p(v.p), v.p),
                Cell(_p(corrected.get(i)), corrected.get(i)),
                by + (f", {v.split}" if several else ""),
                f"{v.claim.source.partition(' (')[0]}, {v.claim.place}",
            ]
        )
    table = Table(name, title, COLUMNS, rows, _notes(found, list(corrected.values())), section="Verdicts")
    table.sources = sources
    table.row_tags = [{"protocol": label_of(v.plan, v.protocol), "split": v.split} for v in found]
    return table


def _p(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _source(v: Verdict) -> Source:
    """What stands behind a verdict."""
    facts = {
        "claim": f"{v.claim.claim} ({v.claim.source}, {v.claim.place})",
        "verdict": f"{v.printed}: {v.reason}",
        "cells": f"{v.claim.a} - {v.claim.b}",
    }
    facts |= {f"published, {place}": f"{value:+.2f}" for place, value in v.claim.published.items()}
    if v.gap and v.gap.how != "none":
        over = "over seeds" if v.gap.how == "seeds" else "bootstrap over test clips, says nothing of seeds"
        facts["95 % interval"] = f"{v.gap.low:+.2f} to {v.gap.high:+.2f} ({over})"
    facts |= {"note": v.claim.note} if v.claim.note else {}
    return Source(f"{v.claim.claim}: {v.split}", v.runs, facts=facts, command=v.plan["command"])


def _notes(found: list[Verdict], corrected: Iterable[float]) -> list[str]:
    counts = {word: sum(v.word == word for v in found) for word in (REPRODUCED, UNDECIDED, CONTRADICTED, UNTESTED)}
    data, scale = found[0].plan["data"], found[0].plan["scale"]
    values = list(corrected)
    notes = [
        f"{len(found)} tests: " + ", ".join(f"{count} {word}" for word, count in counts.items()),
        f"a verdict is about {data} at scale {scale}, not about the paper's data, length of training or encoder: "
        "reproduced means that the difference has the claimed sign here and its 95 % interval (Student's t, paired, at "
        f"least {SEEDS} seeds) excludes 0; contradicted, that it excludes 0 on the other side; never at scale demo or "
        "on synthetic clips",
        "keeps up, keeps accuracy: reproduced where the interval lies above minus the claim's margin "
        "(published/claims.csv; the margins are ours)",
        "difference: mean over seeds of the first cell minus the second, points of top-1; ±: half the interval, under "
        f"{SEEDS} seeds a bootstrap over test clips, which decides nothing; published: on NTU-60 X-Sub / X-View by the "
        "paper's own training (transfer: to PKU-MMD II from NTU-60 / NTU-120); * which cell was inferred; + from "
        "secondary notes on the paper",
        "verdicts are not corrected for testing many claims (of true ties, one in 40 is called reproduced); "
        + (
            f"by Holm's correction over these {len(values)}, {sum(p < 1 - LEVEL for p in values)} differ from 0 (or "
            "from minus the margin) at 5 %"
            if values
            else "no p-value without three seeds"
        ),
    ]
    commits = sorted({run["commit"] for v in found for run in v.runs if "commit" in run})
    notes += [f"commit {', '.join(commits)}" + (" (MIXED)" if len(commits) > 1 else "")] if commits else []
    tested = {v.claim.ablation for v in found}
    if left := list(dict.fromkeys(c.ablation for c in claims() if c.ablation not in tested)):
        count = sum(c.ablation in left for c in claims())
        where = "data=nwucla scale=small" if scale == "demo" or data in SYNTHETIC else f"data={data} scale={scale}"
        commands = "; ".join(f"python sweeps/run.py ablation={name} {where} 'seeds=[0,1,2]'" for name in left)
        notes.append(f"{count} more claims not tested here; to test them: {commands}")
    return notes
