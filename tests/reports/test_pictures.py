"""Pictures of results: their numbers against plain computations, that they are drawn, and what is said where not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.image import imread

from reports import figures
from reports.bodies import from_the_front
from reports.chosen import command_for, judged, predictions
from reports.classes import class_accuracy, paired, right_in, wilson
from reports.confusion import confusion_matrix, shares
from reports.embedding import embedding_map
from reports.robustness import curve, robustness_curves
from reports.strips import neighbour_strips, side_by_side
from reports.style import class_look
from skeletons.errors import BadInput
from skeletons.sources.demo import DemoSpec, generate
from skeletons.topology import KINECT_V1
from sweeps.execute import execute
from sweeps.plan import make_plan
from sweeps.records import Records, read_json, write_json
from sweeps.run import write_plan
from tests.reports.pictures import records

KINDS = ("embedding", "neighbours", "confusion", "classes", "robustness")


@pytest.fixture
def made(tmp_path):
    """(plan, records) of three classes and one person."""
    found = records(tmp_path / "runs")
    return read_json(found.plan_file("plan")), found


def texts(figure) -> str:
    every = [a.get_title() for a in figure.axes] + [t.get_text() for a in figure.axes for t in a.texts]
    return "\n".join([figure.get_suptitle(), *every, *(a.get_xlabel() for a in figure.axes)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("persons, classes", [(1, 3), (2, 27)])
def test_pictures_are_written_and_show_something(tmp_path, kind, persons, classes):
    found = records(tmp_path / "runs", persons, classes)
    assert figures.main([f"figure={kind}", f"runs={found.root}", "plan=plan", f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".pdf", ".png"]
    pixels = imread(next((tmp_path / "out").glob("*.png")))[..., :3]
    ink = (pixels < 0.9).any(-1)
    assert 0.01 < ink.mean() < 0.6 and min(pixels.shape[:2]) > 300
    assert not ink[0].any() and not ink[-1].any() and not ink[:, 0].any() and not ink[:, -1].any(), "cut off at an edge"


@pytest.mark.parametrize(
    "kind, cell", [("embedding", "untrained,slim"), ("neighbours", "raw"), ("classes", "untrained")]
)
def test_a_picture_of_other_cells_has_a_name_of_its_own(made, tmp_path, kind, cell):
    line = [f"figure={kind}", f"runs={made[1].root}", f"cell={cell}", f"out={tmp_path / 'out'}"]
    assert figures.main(line) == 0
    assert (tmp_path / "out" / f"{kind}-plan-{cell}.png").is_file()


def test_shares_equal_scikit_learns_confusion_matrix(rng):
    from sklearn.metrics import confusion_matrix as expected

    truth, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, (3, 200))
    mean = np.mean([expected(truth, p, labels=range(6), normalize="true") for p in predicted], 0)
    found = shares(predicted, truth, 6)
    assert found[:5] == pytest.approx(100 * mean[:5]) and np.isnan(found[5]).all()


def test_the_matrix_shows_all_seeds_and_draws(made):
    axes = confusion_matrix(*made, {}).axes[0]
    found = predictions(*made, "slim", {})
    assert found.predicted.shape == (4, 120)
    by_hand = [[100 * np.mean(found.predicted[:, found.truth == i] == j) for j in range(3)] for i in range(3)]
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(np.array(by_hand))
    assert [t.get_text() for t in axes.texts] == [f"{v:.0f}" for row in by_hand for v in row]
    assert predictions(*made, "slim", {"seed": "1"}).predicted.shape == (2, 120)


def test_wilsons_interval_is_scipys():
    from scipy.stats import binomtest

    for right, clips in ((0, 7), (16, 16), (9, 16), (300, 700)):
        low, high = wilson(np.array([right / clips]), np.array([clips]))
        expected = binomtest(right, clips).proportion_ci(method="wilson")
        assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_paired_intervals_cover_the_truth_as_often_as_they_say(rng):
    hit = 0
    for _ in range(2000):
        both = rng.random(20) < 0.6
        these, those = np.where(rng.random((2, 20)) < 0.7, both, rng.random((2, 20)) < 0.4)
        low, high = paired(these.astype(float) - those)
        hit += low <= 0 <= high
    assert 0.94 < hit / 2000 < 0.995
    low, high = paired(np.zeros(16))
    assert low == -high and 0.05 < high < 0.2, "not one differing clip of 16 proves little"


def test_bars_and_gains_are_those_of_the_classes(made):
    figure = class_accuracy(*made, {})
    slim, floor = (right_in(predictions(*made, c, {})) for c in ("slim", "untrained"))
    truth = np.arange(120) % 3
    by_class = sorted((slim[truth == c].mean(), c) for c in range(3))
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([100 * a for a, _ in by_class])
    marks = [line.get_xdata()[0] for line in figure.axes[1].lines if len(line.get_xdata()) == 1]
    assert marks == pytest.approx([100 * (slim - floor)[truth == c].mean() for _, c in by_class])
    assert "difference to untrained encoder" in texts(figure)
    assert len(class_accuracy(*made, {"cell": "untrained", "to": "slim"}).axes) == 2


def test_the_map_has_a_panel_for_each_cell_and_every_drawn_clip(made):
    figure = embedding_map(*made, {})
    assert [a.get_title().splitlines()[0] for a in figure.axes] == ["raw coordinates", "untrained encoder", "slim"]
    points = [
        np.concatenate([c.get_offsets() for c in a.collections if isinstance(c, PathCollection)]) for a in figure.axes
    ]
    kept = judged(*made, "slim", "xsub", "embedding", {}, "map").arrays[0]
    order = np.argsort(kept["truth"][kept["map_clips"]], kind="stable")
    drawn = points[-1][np.isfinite(points[-1]).all(-1)]
    assert np.asarray(drawn) == pytest.approx(kept["map"][order])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [f"class number {c}" for c in range(3)]
    assert len({tuple(class_look(i).values()) for i in range(120)}) == 120


def test_strips_say_which_neighbours_are_alike_not_by_colour_alone(made):
    figure = neighbour_strips(*made, {})
    kept = judged(*made, "slim", "xsub", "embedding", {}, "map").arrays[0]
    of = kept["truth"][kept["strip_queries"]]
    for place, axes in enumerate(figure.axes):
        i, j = divmod(place, 6)
        if j == 0:
            assert axes.get_title() == f"query: class number {of[i]}"
            continue
        same = kept["strip_classes"][i, j - 1] == of[i]
        assert axes.get_title()[0] == ("✓" if same else "✗")
        assert (axes.spines["top"].get_linestyle() == "-") is bool(same)
        assert axes.get_xlabel() == f"clip{i}{j}, cosine {kept['strip_near'][i, j - 1]:.3f}"
    assert "seeds" not in figure.get_suptitle(), "one of them is shown"
    assert "distance" in texts(neighbour_strips(*made, {"cell": "raw"}))


def test_bodies_face_the_viewer(rng):
    """However a body stands before the sensor, its left is on the viewer's right, and its shape is kept."""
    body = KINECT_V1.ancestry.astype(float) @ rng.normal(0, 0.2, (20, 3))
    seen, shown = np.ones((2, 1, 20), bool), []
    for angle in (0.0, 1.0, 2.5, 4.0):
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        shown.append(from_the_front(np.stack([body @ turn.T] * 2)[:, None], seen, KINECT_V1))
    assert all(s == pytest.approx(shown[0]) for s in shown[1:])
    left, right = (KINECT_V1.joints.index(f"shoulder_{s}") for s in ("left", "right"))
    hips = [KINECT_V1.joints.index(f"hip_{s}") for s in ("left", "right")]
    across = shown[0][0, 0, left] - shown[0][0, 0, right] + shown[0][0, 0, hips[0]] - shown[0][0, 0, hips[1]]
    assert across[0] > 0 and shown[0][0, 0, :, 1] == pytest.approx(body[:, 1])
    two = np.stack([body, body + np.array([0, 0, -1.5])])[None]
    beside = from_the_front(two, np.ones((1, 2, 20), bool), KINECT_V1)
    assert (beside[0, 1] - beside[0, 0])[:, 0] == pytest.approx(np.full(20, 1.5))


def test_frames_stand_side_by_side_and_nobody_is_seen_in_an_empty_clip(made):
    kept = judged(*made, "slim", "xsub", "embedding", {}, "map").arrays[0]
    given = (kept["strip_joints"], kept["strip_observed"], kept["parents"], kept["joint_names"])
    points, seen, step = side_by_side(*given)
    assert points.shape[:3] == seen.shape[:3] and 3 <= points.shape[2] <= 5
    middle = (points[..., 0].max((-1, -2)) + points[..., 0].min((-1, -2))) / 2
    assert middle == pytest.approx(np.broadcast_to(step * np.arange(points.shape[2]), middle.shape), abs=1e-4)
    nobody = np.zeros_like(kept["strip_observed"])
    assert np.isfinite(side_by_side(given[0], nobody, *given[2:])[0]).all()


def test_what_is_missing_is_one_line_with_the_command_that_makes_it(made, tmp_path, capsys):
    plan, found = made
    line = [f"runs={found.root}", f"out={tmp_path / 'out'}"]
    shutil.rmtree(found.run("slim0") / "eval" / "e")
    shutil.rmtree(found.run("slim1") / "eval" / "e")
    with pytest.raises(BadInput, match=r"no embedding of slim on xsub yet; run: python sweeps/run\.py ablation=stm"):
        figures.main([*line, "figure=neighbours"])
    with pytest.raises(BadInput, match="no embedding of slim"):
        figures.main([*line, "figure=embedding", "cell=raw,slim"])
    assert figures.main([*line, "figure=embedding"]) == 0
    assert "left out: no embedding of slim on xsub yet" in capsys.readouterr().out
    with pytest.raises(BadInput, match="plan does not judge raw on xsub by linear"):
        figures.main([*line, "figure=confusion", "cell=raw", "protocol=linear"])
    assert command_for(plan, "embedding") == plan["command"]
    assert command_for(plan, "cluster") == "python sweeps/run.py ablation=stm protocol=cluster"
    assert command_for(plan, "semi:0.1") == "python sweeps/run.py ablation=stm protocol.names=[semi:0.1]"


def test_results_kept_before_there_were_predictions_are_named(made):
    found = made[1]
    found.arrays_file("slim0", "l").unlink()
    with pytest.raises(BadInput, match=r"slim0/eval/l: kept without 'predicted'.*remove that folder and run: python"):
        confusion_matrix(*made, {})


def test_the_newest_plan_that_has_the_results_is_drawn(made, tmp_path):
    plan, found = made
    works = [{**w, "pretraining": "nothing"} for w in plan["works"]]
    write_json(
        found.plan_file("newer"),
        {k: v for k, v in plan.items() if k != "labels"}  # as older versions wrote it
        | {"name": "newer", "title": "other", "ablation": "", "written": 2.0, "works": works},
    )
    line = [f"runs={found.root}", "figure=confusion", f"out={tmp_path / 'out'}"]
    assert figures.main(line) == 0 and (tmp_path / "out" / "confusion-plan.png").is_file()
    with pytest.raises(BadInput, match="no linear of slim"):
        figures.main([*line, "plan=newer"])


def test_what_a_run_leaves_can_be_drawn(tmp_path, monkeypatch, capsys):
    """From clips through the protocols' files to pictures: the names of arrays agree."""
    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "tiny.npz", **generate(DemoSpec(subjects=4, cameras=1, repetitions=1)))
    line = ["method=untrained", "protocol=embedding", "protocol.names=[retrieval,embedding,robustness]"]
    line += [
        "data=archive",
        "protocol.probe.length=5 steps",
        "backbone.width=8",
        "backbone.heads=2",
        "backbone.depth=1",
        "views.frames=16",
        "protocol.embedding.strips=2",
    ]
    line += [f"data.file={tmp_path / 'tiny.npz'}", "data.split=xsub", f"runs={tmp_path / 'runs'}"]
    config, works = make_plan(line)
    found = Records(config.runs)
    for work in works:
        execute(work, found)
    write_plan(found, "made", config, works, line)
    for kind in KINDS:
        assert figures.main([f"figure={kind}", f"runs={found.root}", f"out={tmp_path / 'out'}"]) == 0
    assert len(list((tmp_path / "out").glob("*-made.png"))) == len(KINDS)
    assert figures.main(["figure=attention", "cell=untrained", f"runs={found.root}", f"out={tmp_path / 'out'}"]) == 0
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["figure=confusoin"], "did you mean 'confusion'"),
        (["figure=confusion", "cel=slim"], "did you mean 'cell'"),
        (["figure=confusion", "cell=slimm"], "unknown cell 'slimm'; did you mean 'slim'"),
        (["figure=confusion", "cell=slim,raw"], "name one"),
        (["figure=classes", "to=slimm"], "did you mean 'slim'"),
        (["figure=embedding", "split=xvieu"], "unknown split"),
        (["figure=neighbours", "seed=7"], "unknown seed '7'; .*known: 0, 1"),
        (["figure=embedding", "plan=plam"], "no plan for plan=plam; known: plan"),
    ],
)
def test_bad_arguments_are_refused(made, wrong, said):
    with pytest.raises(BadInput, match=said):
        figures.main([*wrong, f"runs={made[1].root}"])


def test_curves_grow_from_the_clean_clips_and_are_means_over_seeds(made):
    plan, found = made
    one = judged(plan, found, "slim", "xsub", "robustness", {}, "corruption")
    strengths, accuracy = curve(one, "noise")
    assert strengths.tolist() == [0, 0.01, 0.05, 0.1] and accuracy[0] == 80
    expected = [100 * np.mean([(a["predicted"][row] == a["truth"]).mean() for a in one.arrays]) for row in (1, 0, 2)]
    np.testing.assert_allclose(accuracy[1:], expected)
    drawn = robustness_curves(plan, found, {})
    assert [a.get_title() for a in drawn.axes if a.get_visible()] == ["noise", "rotation"]
    labels = [t.get_text() for t in drawn.legends[0].get_texts()]
    assert labels == ["slim (55.0)", "untrained encoder (55.0)", "raw coordinates (55.0)"]
    with pytest.raises(BadInput, match="did you mean"):
        robustness_curves(plan, found, {"cell": "slimm"})
