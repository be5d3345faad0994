"""What a sweep shows while it runs: a live table on a terminal, a plain log elsewhere; and when it will be over."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from sweeps.remaining import Seen, remaining


class Progress:
    """Shows events of a sweep.

    Args:
        total: pieces of work to do.
        workers: processes that do them.
        expected: key of a piece -> seconds it is expected to take, where that is known.
    """

    def __init__(self, total: int, workers: int, expected: Mapping[str, float | None] | None = None):
        self.total, self.workers, self.done = total, workers, 0
        self.expected = expected or {}
        self.began = time.monotonic()
        self.rows: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, Seen] = {}
        self.live: Any = None

    def __enter__(self) -> Progress:
        if not self.total:
            return self
        print(f"{self.total} pieces of work on {self.workers} worker(s)", flush=True)
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(self._table(), refresh_per_second=2)
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.__exit__(*error)

    def event(self, kind: str, key: str, details: dict[str, Any]) -> None:
        """Take note of one event of `sweeps.workers.run_all`."""
        row = self.rows.setdefault(key, {"state": "running"})
        row.update(details)
        now = time.monotonic()
        if key and (kind == "started" or key not in self.seen):  # perhaps once more, by another worker
            self.seen[key] = Seen(now)
        if kind == "training":  # of workers elsewhere only the step is told
            self.seen[key].step(now, row["step"] / row["steps"] if isinstance(row["steps"], int) else None)
        if kind in ("finished", "failed"):
            self.done += 1
            row["state"] = kind
            self.seen[key].took = row["seconds"] = now - self.seen[key].began
            self.seen[key].failed = kind == "failed"
        if kind == "judged":
            row[details["protocol"]] = details["top1"]
        if self.live is not None:
            self.live.update(self._table())
        elif kind != "training" or "knn" in details:
            self._log(kind, key, row)

    def remaining(self) -> float | None:
        """Seconds until all is done, None as long as there is nothing to tell it by."""
        return remaining(self.seen, self.expected, self.total, self.workers, time.monotonic())

    def _when(self) -> str:
        from sweeps.forecast import in_words

        left = self.remaining()
        if self.done == self.total:
            return "done"
        return f"about {in_words(left)} left" if left else "time left unknown"

    def _log(self, kind: str, key: str, row: dict[str, Any]) -> None:
        what = " ".join(str(row[k]) for k in ("cell", "split") if k in row) or "a worker"
        what += f" seed {row['seed']}" if "seed" in row else ""
        text = {
            "training": lambda: (
                f"step {row['step']}/{row['steps']}  loss {row['loss']:.3f}  kNN {row['knn']:.1f}  "
                f"rank {row['feature_rank']:.1f}  {row['clips_per_second']:.0f} clips/s"
            ),
            "judged": lambda: f"{row['protocol']} {row['top1']:.1f} %",
            "finished": lambda: f"finished in {row['seconds']:.0f} s ({self.done}/{self.total}; {self._when()})",
            "failed": lambda: f"FAILED: {row['reason']}",
            "given back": lambda: f"given back: {row['reason']}",
            "died": lambda: f"died ({row['reason']}); another takes its place",
        }.get(kind, lambda: kind)()
        print(f"[{time.monotonic() - self.began:6.0f} s] {what}: {text}", flush=True)

    def _table(self) -> Any:
        from rich.table import Table

        past = time.monotonic() - self.began
        table = Table(title=f"{self.done} of {self.total} done, {past:.0f} s; {self._when()}")
        for column in ("cell", "split", "seed", "step", "loss", "kNN", "clips/s", "linear (fast)", "1-NN", "state"):
            table.add_column(column, justify="left" if column in ("cell", "split", "state") else "right")
        for key, row in self.rows.items():
            if not key:
                continue
            table.add_row(
                *(str(row.get(k, "")) for k in ("cell", "split", "seed")),
                f"{row['step']}/{row['steps']}" if "step" in row else "",
                *(f"{row[k]:.{d}f}" if k in row else "" for k, d in (("loss", 3), ("knn", 1), ("clips_per_second", 0))),
                *(f"{row[k]:.1f}" if k in row else "" for k in ("linear_fast", "retrieval")),
                row["state"],
            )
        return table
