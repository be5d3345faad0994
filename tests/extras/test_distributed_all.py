"""Every method on two ranks, beside one process with the same batch (short form: tests/methods/test_distributed.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from methods.base import all_methods
from tests.methods.conftest import bodies, parts, views  # noqa: F401  (fixtures)
from tests.methods.two_ranks import Case, compared, in_two_ranks

LIMITS = {"float32": 1e-5, "float64": 1e-12}
# Twenty batch norms over few rows make more of rounding errors (asma: 6e-6), and AimCLR drops what is above a threshold
# that they cross (8e-5). float64 shows that there is nothing else.
CONVOLUTIONS_LIMIT = 1e-3
CONVOLUTIONS = {"kind": "stgcn", "dropout": 0.0}  # each rank draws its own dropout
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name, cls in all_methods().items() if cls.trains}
CASES |= {
    f"{name} stgcn": (name, {"backbone": CONVOLUTIONS})
    for name in ("skeletonclr", "aimclr", "pstl", "asma", "supervised")
}
CASES |= {f"slim {how}": ("slim", {"masking": {"strategy": how, "ratio": [0.5, 0.9]}}) for how in ("tube", "motion")}
CASES["mamp, absent persons too"] = "mamp", {"method": {"persons": "mamp"}}
CASES["mamp cross"] = "mamp", {"masking": {"strategy": "cross"}}
CASES["slim, strata"] = "slim", {"masking": {"ratio_draw": "stratified", "global_probability": 0.5}}
CASES["aimclr, mining"] = "aimclr", {"method": {"mining": 0.0}}


def task(given: dict[str, Case], number: int, join: Callable[[], None]) -> dict[str, Any]:
    return compared(given, number, join)


@pytest.fixture(scope="module")
def ranks(parts, bodies, tmp_path_factory) -> list[dict[str, Any]]:  # noqa: F811
    """What each rank found of each case."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    clips = bodies(clips=12)
    given = {
        f"{name} {bits}": Case(parts(method, **fields), clips, double=bits == "float64")
        for name, (method, fields) in CASES.items()
        for bits in LIMITS
    }
    return in_two_ranks(task, given, folder)


@pytest.mark.parametrize("bits", LIMITS)
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_train_as_one_with_the_same_batch(name, bits, ranks):
    first, second = (found[f"{name} {bits}"] for found in ranks)
    print(f"{name} {bits}: weights {first.weight:.1e}, loss {first.metric:.1e}")
    limit = CONVOLUTIONS_LIMIT if (name[-5:], bits) == ("stgcn", "float32") else LIMITS[bits]
    assert first.weight < limit and first.metric < limit
    assert first.digest == second.digest, "ranks must not drift apart"
