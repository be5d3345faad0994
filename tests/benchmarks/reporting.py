"""The whole report of a thousand runs: 25 plans of ten methods and four seeds, judged by a probe and by retrieval, with
curves and predictions, as sweeps leave them. In a process of its own; first with nothing kept, then again.

Seconds by the clock count what else the machine does; seconds of the processor, of all processes together, do not.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from reports.make import ROOT
from skeletons.topology import KINECT_V2
from sweeps.composing import compose
from sweeps.records import Records, write_json

METHODS = ("slim", "slim_released", "mamp", "skeletonmae", "sjepa", "gfp", "amr", "hacm", "skeletonclr", "untrained")
TABLES = ("methods", "stm", "objective", "saa", "semi")  # what they are called; all have the cells above
DATA = ("nwucla", "utdmhad", "sbu", "irds", "demo")
SEEDS, CLIPS, CLASSES, POINTS = 4, 464, 10, 40


def make_records(folder: Path, plans: int) -> int:
    """Write so many plans with all their records; returns the number of runs."""
    records, rng, count = Records(folder), np.random.default_rng(0), 0
    configs = {name: compose([f"method={name}", "scale=demo"]) for name in METHODS}
    names = np.array([f"class {i}" for i in range(CLASSES)])
    for i in range(plans):
        table, data = TABLES[i % len(TABLES)], DATA[i // len(TABLES) % len(DATA)]
        works = []
        for cell, config in configs.items():
            for seed in range(SEEDS):
                run, count = f"{i:03d}{cell}{seed}", count + 1
                records.run(run).mkdir(parents=True)
                (records.run(run) / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
                hashed = {"method": cell, "fields": {"train": {"batch": 32}}, "versions": {}, "steps": 400}
                hashed |= {"topology": [KINECT_V2.joints, KINECT_V2.parents], "seed": seed}
                told = {"commit": "d2cc42e55d3f", "dirty": False, "machine": "x86_64, 2 cores", "torch": "2.13.0"}
                told |= {"finished": "2026-11-21 12:00:00", "data": data, "split": "xsub", "seed": seed}
                told |= {"seconds": 60.0, "clips_per_second": 80.0}
                write_json(records.run(run) / "run.json", {"identity": run, "hashed": hashed, **told})
                lines = [{"step": 10 * s, "loss": 10 / (s + 1), "knn": 40.0 + s % 9, "lr": 1e-4} for s in range(POINTS)]
                (records.run(run) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
                judged = {"linear_fast": "l", "retrieval": "r"}
                for protocol, identity in judged.items():
                    truth = np.arange(CLIPS) % CLASSES
                    given = np.where(rng.random(CLIPS) < 0.6, truth, rng.integers(0, CLASSES, CLIPS))
                    right = "".join("01"[int(r)] for r in given == truth)
                    result = {
                        "correct": [right],
                        "top1": 100 * right.count("1") / CLIPS,
                        "recipe": "r",
                        "pooling": "mean",
                    }
                    result |= {"train_clips": 1000, "test_clips": CLIPS, "fingerprint": "f", "selection": "last epoch"}
                    result |= {"protocol": protocol, "identity": identity, "pretraining": run, **told}
                    write_json(records.result_file(run, identity), result)
                    arrays = {"predicted": given[None], "truth": truth, "class_names": names}
                    np.savez_compressed(records.arrays_file(run, identity), **arrays)
                works.append({"cell": cell, "split": "xsub", "seed": seed, "pretraining": run, "judgements": judged})
        plan = {
            "name": f"{table}-{data}-small-{i:03d}",
            "command": f"python sweeps/run.py ablation={table} data={data}",
        }
        plan |= {"ablation": table, "title": f"Table {i}", "source": "SLiM (arXiv 2603.10648), Table 2", "show": {}}
        plan |= {"labels": {"linear_fast": "linear (fast)", "retrieval": "1-NN"}, "differs": {}, "reference": "slim"}
        plan |= {"data": data, "scale": "small", "setting": "paper", "written": float(i), "works": works}
        write_json(records.plan_file(plan["name"]), plan)
    return count


def run(quick: bool = False) -> list[dict]:
    """Rows of benchmark, measure and value."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runs, out = Path(folder) / "runs", Path(folder) / "out"
        count = make_records(runs, 3 if quick else 25)
        for kind in ("first", "again"):
            before, start = _processor(), time.perf_counter()
            command = [sys.executable, str(ROOT / "reports" / "make.py"), f"runs={runs}", f"out={out}"]
            said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            assert "written:" in said and said.rstrip().endswith("report.html"), said
            taken = {"seconds by the clock": time.perf_counter() - start, "seconds of processor": _processor() - before}
            rows += [
                {"benchmark": f"report of {count} runs, {kind}", "measure": m, "value": v} for m, v in taken.items()
            ]
        size = (out / "report.html").stat().st_size / 2**20
        drawn = len(list((out / "pictures").glob("*.png")))
        rows.append(
            {"benchmark": f"report of {count} runs", "measure": f"MiB of the page ({drawn} tried)", "value": size}
        )
    return rows


def _processor() -> float:
    """Seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
