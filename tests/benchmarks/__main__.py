"""`make bench`: what the design promises about speed, as ratios measured alternately in one process.

    python -m tests.benchmarks [quick] [write]

`write` keeps the figures under tests/benchmarks/results/ with the machine's name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import (
    encoding,
    extraction,
    overhead,
    preparing,
    probing,
    prototypes,
    reporting,
    retrieval,
    sampling,
    training,
)

PARTS: dict[str, Callable[[bool], list[dict]]] = {
    "preparing": preparing.run,
    "sampling": sampling.run,
    "encoding": encoding.run,
    "extraction": extraction.run,
    "prototypes": prototypes.run,
    "training": training.run,
    "probing": probing.run,
    "retrieval": retrieval.run,
    "overhead": overhead.run,
    "reporting": reporting.run,
}


def main(arguments: list[str]) -> None:
    """Run the parts named (all by default) and print their rows."""
    quick = "quick" in arguments
    rows = []
    for name in [a for a in arguments if a in PARTS] or PARTS:
        for row in PARTS[name](quick):
            print(f"{row['benchmark']:44} {row['measure']:36} {row['value']:10.4g}", flush=True)
            rows.append(row)
    if "write" in arguments:
        from sweeps.records import provenance

        about = provenance()
        place = Path(__file__).parent / "results" / f"{about['machine'].replace(', ', '-').replace(' ', '-')}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"provenance": about, "rows": rows}, indent=1) + "\n")
        print(f"written: {place}")


if __name__ == "__main__":
    main(sys.argv[1:])
