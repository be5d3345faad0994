"""A plan's table: what was measured beside what was published, never mixed up with it.

Rows are cells; the floors (untrained encoder, raw coordinates) stand below. Every measured number has its interval, and
the difference to the reference cell is paired, seed by seed and clip by clip. Where the splits are folds, their test
clips are put together.
"""

from __future__ import annotations

from typing import Any

from reports.commits import Commits
from reports.formats import Cell, Source, Table, rank_columns
from reports.intervals import Estimate, difference, estimate, scores
from reports.literature import published_columns, what_is_published
from reports.provenance import difference_source, source_of
from sweeps.records import Records

FLOORS = {"untrained": "untrained encoder", "raw": "raw coordinates"}
Results = dict[tuple[str, str, str], dict[int, dict]]  # (cell, split, protocol) -> seed -> result


def results_of(plan: dict[str, Any], records: Records) -> Results:
    """What there is of a plan's results."""
    found: Results = {}
    for work in plan["works"]:
        for protocol, judgement in work["judgements"].items():
            result = records.result(work["pretraining"], judgement)
            if result is not None:
                found.setdefault((work["cell"], work["split"], protocol), {})[work["seed"]] = result
    return found


def folds_together(results: Results, splits: list[str]) -> tuple[Results, list[str]]:
    """Results of all folds as those of one split, clips end to end, where every split is a fold; seeds that lack a fold
    are left out.

    Returns:
        (results, splits)
    """
    if len(splits) < 2 or not all(s.startswith("fold:") for s in splits):
        return results, splits
    together = f"{len(splits)} folds"
    found: Results = {}
    for cell, protocol in dict.fromkeys((c, p) for c, _, p in results):
        parts = [results.get((cell, split, protocol), {}) for split in splits]
        for seed in set.intersection(*(set(part) for part in parts)):
            each = [part[seed] for part in parts]
            one = {**each[0], "split": together, "test_clips": sum(r["test_clips"] for r in each), "parts": each}
            one |= {k: sum(r[k] for r in each) / len(each) for k, v in each[0].items() if isinstance(v, float)}
            if said := dict.fromkeys(r["audit"] for r in each if "audit" in r):
                one["audit"] = "; ".join(said)
            if "correct" in each[0]:
                one["correct"] = ["".join(draws) for draws in zip(*(r["correct"] for r in each))]
            found.setdefault((cell, together, protocol), {})[seed] = one
    return found, [together]


def ablation_table(plan: dict[str, Any], records: Records) -> Table:
    """The table of a plan.

    Args:
        plan: as `sweeps/run.py` left it in runs/plans.
        records: the runs.
    """
    splits = list(dict.fromkeys(w["split"] for w in plan["works"]))
    each = results_of(plan, records)
    commits = Commits(plan, each, records)
    results, splits = folds_together(each, splits)
    cells = list(dict.fromkeys(w["cell"] for w in plan["works"] if cell_of(w["cell"]) not in FLOORS))
    floors = [c for f in FLOORS for c in dict.fromkeys(w["cell"] for w in plan["works"]) if cell_of(c) == f]
    # Raw coordinates are not judged by all: the order is that of who is.
    fullest = sorted(plan["works"], key=lambda w: -len(w["judgements"]))
    protocols = list(dict.fromkeys(p for w in fullest for p in w["judgements"]))
    published = published_columns(plan["ablation"], plan["source"])
    reference = plan["reference"] if plan["reference"] in cells else ""
    differs = {**FLOORS, **plan["differs"]}

    columns = ["cell", *(["what differs"] if plan["differs"] else []), *published]
    tags = [{"kind": "published"} if title in published else {} for title in columns]
    headline = list(range(len(columns) - len(published), len(columns)))  # these columns are ranked
    for split in splits:
        for protocol in protocols:
            elsewhere = protocol.startswith("transfer:") and len(splits) == 1  # the split is not that of the target
            headline.append(len(columns))
            columns.append(label_of(plan, protocol) + ("" if elsewhere else f" {split}"))
            columns += [f"to {reference}"] if reference else []
            columns += [f"{metric} {split}" for metric in also_shown(plan, protocol)]
            tag = {"protocol": label_of(plan, protocol), "split": split}
            tags += [tag] * (len(columns) - len(tags))
    table = Table(plan["name"], plan["title"], columns, [], rule_before=len(cells) if floors else None)
    table.section, table.label = place_of(plan["source"])
    table.tags = {key: plan[key] for key in ("data", "scale", "setting")} | {"stream": plan.get("stream", "joint")}
    table.column_tags = tags
    rows: list[list[str | Cell]] = []
    for cell in [*cells, *floors]:
        row: list[str | Cell] = [cell]
        row += [differs.get(cell, differs.get(cell_of(cell), ""))] if plan["differs"] else []
        row += [_published(values.get(cell, "-")) for values in published.values()]
        for split in splits:
            for protocol in protocols:
                mine = results.get((cell, split, protocol))
                what = f"{cell}: {label_of(plan, protocol)}, {plan['data']} {split}"
                if mine:
                    found = estimate([scores(r) for r in mine.values()])
                    key = f"{cell}/{protocol}/{split}"
                    table.sources[key] = source_of(what, found, mine, records, plan["command"])
                    row.append(Cell(_number(found) + commits.mark(cell, split, protocol), found.mean, source=key))
                else:
                    row.append(_hole(plan, records, cell, protocol))
                if reference:
                    base = results.get((reference, split, protocol))
                    seeds = dict.fromkeys(base, mine[min(mine)]) if mine and base and cell_of(cell) == "raw" else mine
                    gap = difference(seeds, base) if seeds and base and cell != reference else None
                    if gap and seeds and base:
                        key = f"{cell}-{reference}/{protocol}/{split}"
                        told = f"{cell} minus {what.replace(cell, reference, 1)}"
                        table.sources[key] = difference_source(told, gap, seeds, base, plan["command"])
                        row.append(Cell(_signed(gap), gap.mean, source=key))
                    else:
                        row.append("")
                row += [_mean(mine, metric) for metric in also_shown(plan, protocol)]
        rows.append(row)
    table.rows = rows
    if published:
        table.sources["published"] = Source("a published number", facts={"source": plan["source"]})
    rank_columns(table, headline)
    table.notes = [what_is_published(published, plan["source"])] if published else []
    table.notes += _notes(plan, records, results, commits)
    return table


def place_of(source: str) -> tuple[str, str]:
    """Section of the page, and which of a paper's tables this is: "SLiM (arXiv ...), Table 6" -> "Table 6"."""
    paper, _, number = source.partition(", Table ")
    return (f"Tables of {paper.partition(' (')[0]}", f"Table {number}") if number else ("Further tables", "")


def _published(text: str) -> Cell:
    """A number of the literature; what was inferred has a star."""
    number = text.rstrip("*")
    known = number.replace(".", "", 1).isdigit()
    return Cell(text, float(number) if known else None, source="published" if known else "")


def cell_of(cell: str) -> str:
    """The floor that `cell` is a stream or a variant of (`untrained bone`, `untrained-mae`: untrained), or itself."""
    return next((floor for floor in FLOORS if cell.startswith((f"{floor} ", f"{floor}-"))), cell)


def label_of(plan: dict[str, Any], protocol: str) -> str:
    """A protocol's heading, as the plan has it (plans from before there were headings: its key)."""
    return plan.get("labels", {}).get(protocol, protocol)


def also_shown(plan: dict[str, Any], protocol: str) -> list[str]:
    """Names of further metrics of a protocol that the plan wants to see."""
    return plan.get("show", {}).get(protocol.partition(":")[0].partition(" ")[0], [])


def _number(e: Estimate) -> str:
    return f"{e.mean:.1f}" + (f" ±{e.half:.1f}" if e.how != "none" else "")


def _signed(e: Estimate) -> str:
    return f"{e.mean:+.1f}" + (f" ±{e.half:.1f}" if e.how != "none" else "")


def _mean(seeds: dict[int, dict] | None, metric: str) -> str | Cell:
    """Mean over seeds of a metric beside the headline."""
    found = [r[metric] for r in (seeds or {}).values() if metric in r]
    if not found:
        return "-"
    mean = sum(found) / len(found)
    return Cell(f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.1f}", mean)


def _hole(plan: dict[str, Any], records: Records, cell: str, protocol: str) -> str | Cell:
    """What stands where a result is missing, with the command that would fill it."""
    if not any(protocol in w["judgements"] for w in plan["works"] if w["cell"] == cell):
        return "-"
    mine = [w for w in plan["works"] if w["cell"] == cell and protocol in w["judgements"]]
    failed = any(records.failure(w["pretraining"], [w["judgements"][protocol]]) for w in mine)
    return Cell("failed" if failed else "missing", missing=plan["command"] + (" retry=failed" if failed else ""))


def _failures(plan: dict[str, Any], records: Records) -> list[str]:
    """Why there are holes: cells that failed, each reason once."""
    notes = []
    for work in plan["works"]:
        wanted = work["judgements"].values()
        if records.complete(work["pretraining"], wanted):
            continue
        if failure := records.failure(work["pretraining"], wanted):
            reason = failure["reason"].partition("\n")[0]
            notes.append(f"failed: {work['cell']} {work['split']} seed {work['seed']}: {reason}")
    return [*notes, "what failed is tried again with retry=failed"] if notes else []


def _notes(plan: dict[str, Any], records: Records, results: Results, commits: Commits) -> list[str]:
    one = [r for by_seed in results.values() for r in by_seed.values()]
    notes = _failures(plan, records) + _data_notes(plan, results, one)
    for key in dict.fromkeys(p for _, _, p in results):
        known = [r for (_, _, p), by_seed in results.items() if p == key for r in by_seed.values()]
        some = next((r for r in known if r["pooling"] != "raw" and r["protocol"] != "fusion"), known[0])
        own = " (the method's own)" if key.endswith(" native") else ""
        notes.append(f"{label_of(plan, key)}: {some['recipe']}, pooling {some['pooling']}{own}; {some['selection']}")
    notes += [f"fused: {recipe}" for recipe in dict.fromkeys(r["recipe"] for r in one if r["protocol"] == "fusion")]
    seeds = sorted({w["seed"] for w in plan["works"]})
    how = (
        "Student's t over seeds" if len(seeds) >= 3 else "bootstrap over test clips (too few seeds for one over seeds)"
    )
    notes.append(f"seeds {seeds}; ± is half of a 95 % interval: {how}; differences are paired")
    runs = [records.about(w["pretraining"]) for w in plan["works"] if w["pretraining"] != "raw"]
    runs = [r for r in runs if r]
    if runs:
        trained = [r for r in runs if r["clips_per_second"]]
        notes.append(
            f"{commits.note()}; {runs[0]['machine']}, torch {runs[0]['torch']}; "
            f"training {sum(r['seconds'] for r in trained):.0f} s in all"
        )
    notes.append(f"made by: {plan['command']}")
    return notes


def _data_notes(plan: dict[str, Any], results: Results, one: list[dict]) -> list[str]:
    """What was judged on: each set and split, the joints a transfer shares, the clips without a twin."""
    notes = []
    for data, split in dict.fromkeys((r["data"], r["split"]) for r in one):
        here = [r for r in one if (r["data"], r["split"]) == (data, split)]
        some = next((r for r in here if r["pooling"] != "raw"), here[0])  # raw ones serve every encoder's table
        source = some.get("trained_on", data), some.get("trained_split", split)
        trained = f", trained on {' '.join(filter(None, source))}" if source != (data, split) else ""
        fed = _streams([r for r in one if (r["data"], r["split"]) == (data, split)])
        notes.append(
            f"measured: data {data} ({some['fingerprint']}){trained}, {fed}, split {split}: {some['train_clips']} "
            f"training and {some['test_clips']} test clips; scale {plan['scale']}, setting {plan['setting']}; top-1 %"
        )
        audits = dict.fromkeys(r["audit"] for r in one if (r["data"], r["split"]) == (data, split) and "audit" in r)
        notes += [f"audit of {data} {split}: {said}" for said in audits]
        if seen := max(r.get("test_clips_seen", 0) for r in here):
            notes.append(
                f"{seen} of the {some['test_clips']} test clips of {data} {split} are clips that were trained on"
            )
        if pairs := some.get("chiral"):
            notes.append(
                f"{pairs} pair(s) of classes of {data} are each other's mirror image: views of a clip are mirrored "
                "alike (augment.mirror_per=auto), and not at all where labels are learnt"
            )
        shared = next((r for r in one if r["data"] == data and "joints_shared" in r), None)
        if shared:
            unknown = ", ".join(shared["joints_unknown"]) or "none"
            notes.append(
                f"joints of {data} known by name: {len(shared['joints_shared'])}; embedded as a neighbour: {unknown}"
            )
        shown = [
            f"{cell} {label_of(plan, protocol)} {sum(r['top1_without_twins'] for r in by.values()) / len(by):.1f}"
            for (cell, _, protocol), by in results.items()
            if all(r["data"] == data and r["split"] == split and "top1_without_twins" in r for r in by.values())
        ]
        if shown:
            clips = next(r["clips_without_twins"] for r in one if r["data"] == data and "clips_without_twins" in r)
            notes.append(f"on the {clips} test clips of {data} without an identical training clip: {', '.join(shown)}")
    return notes


def _streams(results: list[dict]) -> str:
    """The streams of these results in words (results from before there were streams: joints)."""
    found = list(dict.fromkeys(r.get("stream", "joint") for r in results))
    return f"{found[0]} stream" if len(found) == 1 else f"streams {', '.join(found)}"
