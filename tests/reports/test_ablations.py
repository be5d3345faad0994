"""Pictures across cells: what is drawn equals what was recorded, and what is missing is said."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.stats import t

from methods.flops import encoder_flops
from reports import figures, spent
from reports.bars import ablation_bars
from reports.curves import together, training_curves
from reports.labels import label_efficiency
from reports.pareto import beside, front, pareto, unit
from reports.style import looks
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V1
from sweeps.costs import count_views
from sweeps.records import Records, read_json
from tests.reports.ablations import BATCH, CELLS, SEEDS, STEPS, ablation, result, right_of, small

KINDS = ("pareto", "bars", "curves", "labels")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Records:
    found = ablation(tmp_path_factory.mktemp("kept") / "runs")
    pareto(plan_of(found), found, {})  # FLOPs are counted once for all tests
    return found


@pytest.fixture
def found(kept, tmp_path) -> Records:
    shutil.copytree(kept.root, tmp_path / "runs")
    return Records(tmp_path / "runs")


def plan_of(found: Records) -> dict:
    return read_json(found.plan_file("plan"))


def line(axes, label: str):
    """(x, y) of the line with this label."""
    return next(one for one in axes.lines if one.get_label() == label).get_xydata().T


def percent(cell: str, protocol: str = "linear", seed: int | None = None) -> float:
    return 100 * float(np.mean([right_of(cell, protocol, s).mean() for s in (SEEDS if seed is None else [seed])]))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_written_and_not_cut_off(found, tmp_path, kind):
    assert figures.main([f"figure={kind}", f"runs={found.root}", f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".pdf", ".png"]
    ink = (imread(tmp_path / "out" / f"{kind}-plan.png")[..., :3] < 0.9).any(-1)
    assert 0.01 < ink.mean() < 0.6
    assert not ink[0].any() and not ink[-1].any() and not ink[:, 0].any() and not ink[:, -1].any(), "cut off at an edge"


def test_on_the_front_is_who_is_beaten_by_nobody(rng):
    for _ in range(50):
        cost, gain = rng.integers(1, 6, 7).astype(float), rng.integers(1, 6, 7).astype(float)
        points = list(zip(cost.tolist(), gain.tolist()))
        expected = {p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)}
        places = front(cost, gain)
        assert {points[i] for i in places} == expected and len(places) == len(expected)
        assert [cost[i] for i in places] == sorted(cost[i] for i in places)


def test_points_stand_at_recorded_accuracy_and_counted_flops(found):
    inference, training = pareto(plan_of(found), found, {}).axes
    for cell in CELLS:
        config = small(cell)
        one = encoder_flops(config.backbone, 16 // config.backbone.patch, len(KINECT_V1))
        assert line(inference, cell)[:, 0] == pytest.approx([one / 1e9, percent(cell)])
        step = sum(count_views(config, KINECT_V1, 1).flops.values())
        assert line(training, cell)[:, 0] == pytest.approx([step * STEPS / unit(step * STEPS)[1], percent(cell)])
        drawn = next(o for o in inference.lines if o.get_color() == looks(list(CELLS))[cell]["color"]).get_ydata()
        means = [percent(cell, seed=s) for s in SEEDS]
        assert np.diff(drawn)[0] == pytest.approx(2 * t.ppf(0.975, 2) * np.std(means, ddof=1) / np.sqrt(3))
    floors = {text.get_text(): text.xy[1] for text in inference.texts}
    assert floors["untrained encoder"] == pytest.approx(percent("untrained")) and "raw coordinates" in floors


def test_flops_are_counted_once_and_kept(found, monkeypatch):
    assert len(read_json(found.root / "flops.json")) == 4, "seeds share a configuration"

    def again(*_):
        raise AssertionError("counted again")

    monkeypatch.setattr(spent, "counted_on", again)
    pareto(plan_of(found), found, {})


def test_equal_costs_stand_beside_each_other_and_units_can_be_read():
    aside = beside({"a": 1.0, "b": 2.0, "c": 1.01, "d": 1.0})
    assert aside["b"] == 0 and aside["a"] < aside["c"] < aside["d"] and aside["a"] == -aside["d"]
    assert [unit(x)[0] for x in (5e6, 2e9, 3e12, 4e15, 1e20)] == ["G", "G", "T", "P", "E"]


def test_published_points_have_panels_of_their_own(found):
    plan = plan_of(found)
    names = {"no-global": "mamp", "limited-global": "sjepa", "dual": "slim"}
    works = [{**w, "cell": names.get(w["cell"], w["cell"])} for w in plan["works"]]
    drawn = pareto({**plan, "works": works}, found, {})
    assert len(drawn.axes) == 4
    assert line(drawn.axes[2], "slim")[:, 0] == pytest.approx([3.59, 87.9])
    assert line(drawn.axes[3], "sjepa")[:, 0] == pytest.approx([1.97 + 17.7 + 28.32, 85.3])
    for axes, hollow in zip(drawn.axes, (False, False, True, True)):
        marks = [one for one in axes.lines if one.get_label() in names.values()]
        assert all((one.get_markerfacecolor() == "white") is hollow for one in marks) and marks


def test_bars_are_as_long_as_the_records_say_and_differences_are_paired(found):
    left, right = ablation_bars(plan_of(found), found, {}).axes
    labels = [label.get_text().splitlines()[0] for label in left.get_yticklabels()]
    assert labels == [*CELLS, "raw coordinates", "untrained encoder"]
    means = [percent(cell) for cell in CELLS] + [percent("raw", seed=0), percent("untrained")]
    assert [bar.get_width() for bar in left.patches] == pytest.approx(means)
    for cell in ("no-global", "untrained"):
        gaps = [percent(cell, seed=s) - percent("dual", seed=s) for s in SEEDS]
        assert line(right, f"measured {cell}")[0, 0] == pytest.approx(np.mean(gaps))
        half = t.ppf(0.975, 2) * np.std(gaps, ddof=1) / np.sqrt(3)
        ends = [one.get_xdata() for one in right.lines if len(one.get_xdata()) == 2]
        assert any(np.allclose(np.sort(e), [np.mean(gaps) - half, np.mean(gaps) + half]) for e in ends)


def test_published_differences_are_hollow_beside_the_measured_ones(found):
    right = ablation_bars(plan_of(found), found, {}).axes[1]
    drawn = [one for one in right.lines if one.get_label() == "published limited-global"]
    assert [float(one.get_xdata()[0]) for one in drawn] == pytest.approx([84.2 - 87.7, 90.4 - 92.7])
    assert all(one.get_markerfacecolor() == "white" for one in drawn)
    assert [text.get_text() for text in right.texts] == ["*", "*"], "no-global's cell was inferred"
    other = ablation_bars(plan_of(found), found, {"to": "no-global"}).axes[1]
    assert line(other, "published dual")[0, 0] == pytest.approx(87.7 - 75.3)


def test_few_labels_stand_beside_what_was_published_for_as_many(found):
    plan = plan_of(found)
    names = {"no-global": "mamp", "dual": "slim"}
    works = [{**w, "cell": names.get(w["cell"], w["cell"])} for w in plan["works"]]
    plan |= {"works": works, "ablation": "semi", "source": "SLiM (arXiv 2603.10648), Table 3", "reference": "slim"}
    drawn = ablation_bars(plan, found, {"protocol": "semi:0.1"})
    assert [t.get_text() for t in drawn.legends[0].get_texts()] == [
        "measured",
        "published 10 % X-Sub",
        "published 10 % X-View",
    ]
    one = next(o for o in drawn.axes[1].lines if o.get_label() == "published mamp")
    assert one.get_xdata()[0] == pytest.approx(88.0 - 88.8)
    assert "Table 3" in drawn.get_suptitle() and "3 seeds" in drawn.get_suptitle()


def test_curves_are_means_over_seeds_and_run_over_clips_seen(found):
    drawn = training_curves(plan_of(found), found, {})
    loss, knn, rank = drawn.axes
    clips = np.array([10, 30]) * BATCH
    assert line(loss, "dual") == pytest.approx(np.array([clips, [5.0, 3.0]])), "one method: the loss itself"
    assert line(knn, "dual") == pytest.approx(np.array([[15 * BATCH, 30 * BATCH], [31.0, 41.0]]))
    assert line(rank, "dual") == pytest.approx(np.array([[15 * BATCH], [5.0]]))
    assert "3 seeds" in drawn.get_suptitle()
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == list(CELLS), "the untrained one has no curve"
    clips, mean, low, high = together(
        [(np.array([1, 2, 3]), np.array([1.0, 2, 3])), (np.array([2, 3]), np.array([4.0, 5]))]
    )
    assert clips.tolist() == [2, 3] and mean.tolist() == [3, 4] and low.tolist() == [2, 3] and high.tolist() == [4, 5]


def test_losses_of_different_methods_are_shares_of_their_first_value(found):
    path = found.run("dual0") / "run.json"
    path.write_text(path.read_text().replace('"slim"', '"mamp"'))
    loss = training_curves(plan_of(found), found, {"seed": "0"}).axes[0]
    assert line(loss, "dual")[1] == pytest.approx([1, 0.5]) and "share" in loss.get_title()


def test_label_curves_end_in_what_the_records_have_of_all_labels(found):
    plan = plan_of(found)
    tuned = np.arange(50)[None] < 45
    result(found, plan["works"][-1], "tuned", "finetune", tuned)  # dual's last seed
    measured = label_efficiency(plan, found, {}).axes[0]
    expected = [percent("dual", "semi:0.01"), percent("dual", "semi:0.1"), 90.0]
    assert line(measured, "dual") == pytest.approx(np.array([[0.01, 0.1, 1.0], expected]))
    assert line(measured, "no-global")[1] == pytest.approx([percent("no-global", f"semi:{s}") for s in (0.01, 0.1)])
    frozen = [one.get_ydata()[0] for one in measured.lines if one.get_label() == "_frozen"]
    assert frozen == pytest.approx([percent(cell) for cell in (*CELLS, "untrained")])


def test_published_label_curves_have_a_panel_of_their_own(found):
    plan = plan_of(found)
    works = [{**w, "cell": {"dual": "slim"}.get(w["cell"], w["cell"])} for w in plan["works"]]
    plan |= {"works": works, "ablation": "semi", "source": "SLiM (arXiv 2603.10648), Table 3"}
    axes = label_efficiency(plan, found, {}).axes
    assert len(axes) == 2
    shares, values = axes[1].lines[0].get_xydata().T
    assert shares == pytest.approx([0.01, 0.1]) and values == pytest.approx([72.1, 88.8])


@pytest.mark.parametrize("kind, key", list(itertools.product(KINDS, ("cell", "seed", "split"))))
def test_names_that_are_not_there_are_refused(kept, kind, key):
    with pytest.raises(BadInput, match=f"unknown {key} 'nobody'"):
        figures.FROM_RECORDS[kind](plan_of(kept), kept, {key: "nobody"})


def test_what_is_missing_is_one_line_with_the_command_that_makes_it(found, capsys):
    plan = plan_of(found)
    for seed in SEEDS:
        shutil.rmtree(found.run(f"no-global{seed}"))
    for kind in KINDS:
        figures.FROM_RECORDS[kind](plan, found, {})
        if kind != "curves":
            with pytest.raises(BadInput, match=r"no-global on xsub yet; run: python sweeps/run\.py ablation=stm"):
                figures.FROM_RECORDS[kind](plan, found, {"cell": "no-global,dual"})
    assert "left out: no linear of no-global" in capsys.readouterr().out
    empty = Records(found.root / "nothing")
    for kind in KINDS:
        with pytest.raises(BadInput, match=r"yet; run: python sweeps/run\.py ablation=stm"):
            figures.FROM_RECORDS[kind](plan, empty, {})
    with pytest.raises(BadInput, match="no linear on xsub yet"):
        pareto(plan, empty, {})
