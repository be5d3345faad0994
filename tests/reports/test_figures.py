"""Figures are drawn from real clips and say what they show."""

from __future__ import annotations

import pytest
from matplotlib.collections import QuadMesh

from methods.masking import all_strategies
from reports import figures
from reports.masks import context_of, mask_gallery
from skeletons.errors import BadInput
from sweeps.composing import compose


@pytest.fixture
def line(tmp_path, monkeypatch) -> list[str]:
    import numpy as np

    from skeletons.sources.demo import DemoSpec, generate

    monkeypatch.setenv("SKELBENCH_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "tiny.npz", **generate(DemoSpec(subjects=4, cameras=1, repetitions=1)))
    return ["data=archive", f"data.file={tmp_path / 'tiny.npz'}", "data.split=xsub", "masking.ratio=0.7"]


def test_the_gallery_shows_every_strategy_and_what_it_hid(line):
    config = compose(line)
    drawn = mask_gallery(config, {})
    said = "\n".join(axes.get_ylabel() for axes in drawn.axes)
    for name in all_strategies():
        assert (name.replace("_", " ") in said) is (name != "none")
    drawn_masks = [m for axes in drawn.axes for m in axes.collections if isinstance(m, QuadMesh)]
    hidden = [float((mask.get_array() == 0).mean()) for mask in drawn_masks]
    assert len(hidden) == len(all_strategies()) - 1
    assert sum(share == pytest.approx(0.7, abs=0.005) for share in hidden) >= len(hidden) - 1  # tubes may fall short


def test_the_gallery_is_written_and_unknown_names_are_refused(line, tmp_path, capsys):
    clip = context_of(compose(line), None, 0)[2]
    assert figures.main([*line, "figure=masks", f"clip={clip}", f"out={tmp_path / 'out'}"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".pdf", ".png"]
    assert context_of(compose(line), clip, 0)[2] == clip
    with pytest.raises(BadInput, match="unknown clip 'nobody'"):
        figures.main([*line, "figure=masks", "clip=nobody"])
    with pytest.raises(BadInput, match="did you mean 'masks'"):
        figures.main([*line, "figure=mask"])
    with pytest.raises(BadInput, match="say which figure"):
        figures.main(line)
