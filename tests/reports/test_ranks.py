"""Rank correlations of whole tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from reports.ranks import rank_correlation, rank_tables
from tests.reports.test_verdicts import runs_of

LISTS = {
    "plain": ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]),
    "ties": ([1.0, 1.0, 3.0, 4.0, 4.0, 6.0], [2.0, 1.0, 1.0, 3.0, 5.0, 0.0]),
    "long": (np.random.default_rng(0).normal(size=12).tolist(), np.random.default_rng(1).normal(size=12).tolist()),
    "reverse": ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]),
}
lists = pytest.mark.parametrize(("these", "those"), LISTS.values(), ids=LISTS)


@lists
def test_correlations_are_scipys(these, those):
    found = rank_correlation(these, those)
    assert found.tau == pytest.approx(stats.kendalltau(these, those).statistic)
    assert found.rho == pytest.approx(stats.spearmanr(these, those).statistic)


def test_p_is_scipys_exact_one():
    these, those = LISTS["plain"]
    assert rank_correlation(these, those).tau_p == pytest.approx(stats.kendalltau(these, those, method="exact").pvalue)


def test_p_counts_orders_where_there_are_ties():
    these, those = LISTS["ties"]
    observed = stats.spearmanr(these, those).statistic
    every = [stats.spearmanr(these, order).statistic for order in itertools.permutations(those)]
    expected = np.mean(np.abs(every) >= abs(observed) - 1e-9)
    assert rank_correlation(these, those).rho_p == pytest.approx(expected)


def test_p_of_many_cells_is_drawn_and_near_the_exact_one():
    these, those = LISTS["long"]
    exact = stats.kendalltau(these, those, method="exact").pvalue
    assert rank_correlation(these, those).tau_p == pytest.approx(exact, abs=0.02)


def test_all_equal_has_no_order():
    found = rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert found.tau is None and found.rho_p is None


def test_only_the_published_protocol_is_correlated(tmp_path):
    scores = {
        "dual": [90.0],
        "no-global": [50.0],
        "limited-global": [70.0],
        "no-local": [60.0],
        "limited-local": [80.0],
    }
    plan = {"source": "SLiM (arXiv 2603.10648), Table 6"}
    records, by_probe = runs_of(tmp_path / "a", scores, **plan)
    (table,) = rank_tables(records, [by_probe])
    assert [[str(cell) for cell in row] for row in table.rows] == [
        ["stm", "linear", "X-Sub", "5", "+1.00", "0.017", "+1.00", "0.017"],
        ["stm", "linear", "X-View", "5", "+0.80", "0.083", "+0.90", "0.083"],
    ]
    assert next(iter(table.sources.values())).facts["dual"] == "measured 90.0, published 87.7"
    records, by_neighbour = runs_of(tmp_path / "b", scores, protocol="retrieval", **plan)
    assert rank_tables(records, [by_neighbour]) == []
