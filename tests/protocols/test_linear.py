"""The slow linear probe: its recipes, what its heads read, its norm and steps, and which labels it reads."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.backbone import Transformer
from methods.encoder import EncoderConfig
from methods.stgcn import STGCN
from methods.trainer import batch_clips
from protocols import linear
from protocols.base import Subject, make_protocol
from protocols.features import extract
from protocols.linear import Bank, LinearConfig, train_bank
from protocols.linear_fast import ProbeConfig, fit
from protocols.readout import Readout
from protocols.recipes import RECIPES, SLIM_RATES, Recipe
from skeletons.augment import AugmentConfig
from skeletons.clips import Clips, open_store, write_store
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import ClipTensors, ViewConfig, centre_view
from skeletons.splits import split
from skeletons.topology import KINECT_V2
from sweeps.config import ProtocolConfig
from tests.conftest import synthetic

SMALL = EncoderConfig(width=16, depth=5, heads=2, patch=4, registers=2)
VIEWS = ViewConfig(frames=16)
SHORT = ProtocolConfig(linear=LinearConfig(length="6 steps"))
CPU = torch.device("cpu")


@pytest.fixture
def encoder() -> Transformer:
    return Transformer(SMALL, KINECT_V2, 16)


@pytest.fixture
def subject(encoder: Transformer, clips: Clips) -> Subject:
    return Subject(encoder, clips, split(clips, "xsub"), ClipTensors(clips), VIEWS, "mean")


def relabelled(subject: Subject, truth: torch.Tensor) -> Subject:
    """The same with other test labels."""
    found = replace(subject, _crops={})
    found.__dict__["labels"] = subject.labels[0], truth
    return found


def test_recipes_are_the_papers():
    mamp, amr, slim = (RECIPES[name] for name in ("mamp", "amr", "slim"))
    assert (mamp.tokens, mamp.blocks, mamp.persons, mamp.rates) == (("mean",), (1,), "mamp", (0.1,))
    assert (mamp.length, mamp.batch, mamp.norm, mamp.crop_low, mamp.crop_high) == ("100 epochs", 256, True, 0.5, 1.0)
    assert (mamp.augment.rotation, mamp.augment.limited_angle, mamp.augment.probability) == ("limited", 0.3, 1.0)
    assert (mamp.augment.mirroring, mamp.augment.scaling, mamp.augment.global_1.noise) == ("none", "none", 0.0)
    assert (mamp.min_frames, slim.min_frames) == (64, 16)
    assert amr == replace(mamp, paper="AMR", rates=(0.01,))
    assert (slim.tokens, slim.blocks, slim.persons) == (("cls", "cls+mean"), (1, 4), "sum")
    assert len(slim.rates) == 13 and slim.rates[0] == 2.5e-6 and slim.rates[-1] == 0.025
    assert slim.rates == tuple(rate / 4 for rate in SLIM_RATES) and list(slim.rates) == sorted(slim.rates)
    assert (slim.length, slim.batch, slim.norm) == ("20000 steps", 64, False)
    a = slim.augment
    assert (a.rotation, a.mirroring, a.scaling) == ("aware",) * 3 and a.probability == 0.5
    assert (a.tilt, a.yaw, a.scale_sides) == (0.3, pytest.approx(np.pi), "together")
    assert (a.global_1.noise, a.global_1.noise_probability, a.global_1.axis_drop) == (0.01, 0.5, 0.0)


def test_the_norm_trains_on_batches_and_tests_on_running_statistics():
    bank = Bank(5, 3, {"all": None}, RECIPES["mamp"], 0, CPU)
    mean, variance = torch.zeros(5), torch.ones(5)
    for _ in range(4):
        x = 3 * torch.randn(20, 5) + 2
        bank.step(x, torch.arange(20) % 3, 0.0)
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0, unbiased=True)
    asked, heads = torch.randn(7, 5), bank.heads[0]
    expected = F.linear((asked - mean) / (variance + 1e-6).sqrt(), heads.weight, heads.bias)
    torch.testing.assert_close(bank.logits(asked)[0], expected, rtol=1e-4, atol=1e-5)
    assert not list(bank.parameters())
    one = x[:1].expand(2, -1)  # a batch without variance
    bank.step(one, torch.tensor([0, 1]), 1.0)
    assert torch.isfinite(heads.weight).all()


def test_training_equals_torchs_own_layers():
    """Two kinds of heads at two rates behind one norm, against BatchNorm1d, Linear, SGD and CosineAnnealingLR."""
    columns = {"few": torch.tensor([0, 3]), "all": None}
    recipe = Recipe("x", rates=(0.1, 0.5))
    pool, y, test = torch.randn(30, 5) * 2 + 1, torch.arange(30) % 3, torch.randn(8, 5)

    def features(rows, draws):
        return pool[rows] + draws.normal(len(rows), 5)

    bank, start = Bank(5, 3, columns, recipe, 0, CPU), Bank(5, 3, columns, recipe, 0, CPU)
    rows = torch.arange(3, 30)
    seen = train_bank(bank, features, rows, y[rows], test, 9, 8, 3, seed=2)
    assert seen.shape == (3, 4, 8)
    layers, expected = [], []
    for at, heads in zip((columns["few"], torch.arange(5)), start.heads):
        for number in range(2):
            layer, norm = torch.nn.Linear(len(at), 3), torch.nn.BatchNorm1d(5, affine=False, eps=1e-6)
            mine = slice(3 * number, 3 * number + 3)
            layer.load_state_dict({"weight": heads.weight[mine], "bias": heads.bias[mine]})
            sgd = torch.optim.SGD(layer.parameters(), recipe.rates[number], momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 9)
            layers.append((layer, norm, at, sgd, schedule))
    for step in range(9):
        here = batch_clips(step, 8, 27, 2)
        x = features(rows[here], Draws(2, step, "linear"))
        for layer, norm, at, sgd, schedule in layers:
            sgd.zero_grad()
            F.cross_entropy(layer(norm.train()(x)[:, at]), y[rows][here]).backward()
            sgd.step()
            schedule.step()
        if step in (2, 5, 8):
            expected.append(torch.stack([layer(norm.eval()(test)[:, at]) for layer, norm, at, *_ in layers]))
    torch.testing.assert_close(bank.logits(test), expected[-1].detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(seen, torch.stack(expected).argmax(-1))


@pytest.mark.parametrize("pooling", ["mean/mamp", "mean/concat", "cls+mean/sum", "cls+mean/max"])
def test_heads_read_what_a_pooling_is(pooling, encoder, clips):
    store, (tokens, persons) = ClipTensors(clips), pooling.split("/")
    readout = Readout(encoder.eval(), Recipe("x", tokens=(tokens,), persons=persons), store)
    rows = torch.arange(len(store))
    found = readout.whole(store, rows, VIEWS, batch=5)
    torch.testing.assert_close(found, extract(encoder, store, rows, VIEWS, pooling), rtol=0, atol=1e-5)
    assert list(readout.heads.values()) == [None]


def test_slims_heads_read_the_last_block_or_four(encoder, clips):
    """Against the blocks one by one, for a clip of one person, in whose place nothing is pooled."""
    store = ClipTensors(clips)
    readout = Readout(encoder.eval(), RECIPES["slim"], store)
    view = centre_view(store, torch.tensor([3]), VIEWS, 16)
    found = readout(view)[0]
    assert view.present.tolist() == [[True, False]] and view.observed[:, 0].all()
    shown = []
    hooks = [b.register_forward_hook(lambda m, a, out: shown.append(encoder.norm(out)[0])) for b in encoder.blocks]
    with torch.no_grad():
        tokens = encoder(view.joints[:, 0])
    assert all(hook.remove() is None for hook in hooks) and len(shown) == 5
    torch.testing.assert_close(shown[-1][0], tokens.cls[0])
    cls = [shown[-1 - block][0] for block in range(4)]
    mean = tokens.patches[0].mean((0, 1))
    expected = {
        "cls of 1 block(s)": torch.cat(cls[:1]),
        "cls of 4 block(s)": torch.cat(cls),
        "cls+mean of 1 block(s)": torch.cat([cls[0], mean]),
        "cls+mean of 4 block(s)": torch.cat([*cls, mean]),
    }
    assert set(readout.heads) == set(expected)
    for name, at in readout.heads.items():
        torch.testing.assert_close(found if at is None else found[at], expected[name], rtol=0, atol=1e-5)


def test_blocks_and_tokens_that_are_not_there_are_left_out(clips):
    store, slim = ClipTensors(clips), RECIPES["slim"]
    shallow = Readout(Transformer(replace(SMALL, depth=2), KINECT_V2, 16).eval(), slim, store)
    assert {"cls of 2 block(s)", "cls+mean of 2 block(s)"} <= set(shallow.heads) and len(shallow.heads) == 4
    bare = Readout(Transformer(replace(SMALL, class_token=False), KINECT_V2, 16).eval(), slim, store)
    assert list(bare.heads) == ["cls of 1 block(s)", "cls of 4 block(s)"]
    closed = Readout(STGCN(replace(SMALL, kind="stgcn"), KINECT_V2, 16).eval(), slim, store)
    assert list(closed.heads) == ["cls of 1 block(s)"]


@pytest.mark.parametrize("name", ["linear", "linear:mamp", "linear:amr", "linear:slim"])
def test_test_labels_change_nothing_but_the_score(name, subject):
    protocol = make_protocol(name, SHORT)
    found = protocol(subject)
    truth = subject.labels[1]
    poisoned = protocol(relabelled(subject, (truth + 1) % 3))
    assert torch.equal(found.predicted, poisoned.predicted)
    assert found.details == poisoned.details and found.recipe == poisoned.recipe
    assert np.array_equal(found.arrays["scores"], poisoned.arrays["scores"])
    right = relabelled(subject, found.predicted)
    assert protocol(right).metrics == {"top1": 100.0, "best_test": 100.0}
    for one in (found, poisoned):
        assert list(one.metrics) == ["top1", "best_test"] and one.metrics["best_test"] >= one.metrics["top1"]
    assert np.array_equal(found.arrays["scores"].argmax(1), found.predicted.numpy())
    assert f"{found.details['steps']} steps" in found.recipe and found.details["steps"] == 6


def crafted(monkeypatch, *answers):
    """`train_bank` answers with these predictions, call by call; gives the clips that were trained on."""
    left, rows = list(answers), []

    def answer(bank, features, clips, y, test, steps, batch, evaluations, seed):
        rows.append((clips, y))
        return left.pop(0)(bank, test)

    monkeypatch.setattr(linear, "train_bank", answer)
    return rows


def test_best_test_is_the_best_evaluation_and_the_headline_the_last(subject, monkeypatch):
    truth = subject.labels[1]
    wrong = (truth + 1) % 3
    crafted(monkeypatch, lambda bank, test: torch.stack([wrong, truth, wrong])[:, None])
    found = make_protocol("linear", SHORT)(subject)
    assert found.metrics["best_test"] == 100 > found.metrics["top1"]


def test_a_head_is_chosen_on_withheld_clips_alone(subject, monkeypatch):
    y, truth = subject.labels
    fit_rows, held_rows = subject.withheld(0.25)

    def held(bank, test):
        seen = ((y[held_rows] + 1) % 3).repeat(52, 1)
        seen[17] = y[held_rows]
        return seen[None]

    def final(bank, test):
        seen = bank.predict(test)
        seen[30] = truth
        return seen[None]

    calls = crafted(monkeypatch, held, final)
    found = make_protocol("linear:slim", SHORT)(subject)
    assert torch.equal(calls[0][0], fit_rows) and torch.equal(calls[0][1], y[fit_rows])
    assert torch.equal(calls[1][0], torch.arange(len(y))) and torch.equal(calls[1][1], y)
    assert found.details["rate"] == RECIPES["slim"].rates[17 - 13] and found.details["reads"] == "cls of 4 block(s)"
    assert (found.details["heads"], found.details["validation"]) == (52, 100)
    assert found.metrics["best_test"] == 100 > found.metrics["top1"]


def test_a_papers_recipe_pools_on_its_own(subject):
    plain, mamp = (make_protocol(name, SHORT) for name in ("linear", "linear:mamp"))
    assert plain.pools and not mamp.pools
    assert (plain.heading, mamp.heading) == ("linear", "linear, MAMP's recipe")
    other = replace(subject, pooling="cls+mean", _crops={})
    assert np.array_equal(mamp(subject).arrays["scores"], mamp(other).arrays["scores"])
    assert not np.array_equal(plain(subject).arrays["scores"], plain(other).arrays["scores"])
    same = replace(subject, pooling="mamp", _crops={})
    assert np.array_equal(plain(same).arrays["scores"], mamp(subject).arrays["scores"])


def test_views_are_the_recipes_and_chiral_classes_are_not_mirrored(subject, monkeypatch):
    made: list[AugmentConfig] = []
    plain = linear.Augmentation

    def watched(config, *rest):
        made.append(config)
        return plain(config, *rest)

    monkeypatch.setattr(linear, "Augmentation", watched)
    assert subject.data.chiral
    one = make_protocol("linear:slim", SHORT)(subject)
    free = make_protocol("linear:slim", SHORT)(replace(subject, data=replace(subject.data, chiral=()), _crops={}))
    assert made == [replace(RECIPES["slim"].augment, mirroring="none"), RECIPES["slim"].augment]
    assert "none mirrored" in one.recipe and "mirrored" not in free.recipe
    assert not np.array_equal(one.arrays["scores"], free.arrays["scores"])


def test_raw_coordinates_have_no_crops(subject):
    raw = replace(subject, encoder=None, _crops={})
    found, again = (make_protocol(name, SHORT)(raw) for name in ("linear", "linear:mamp"))
    assert np.array_equal(found.arrays["scores"], again.arrays["scores"]) and "crops" not in found.recipe


def test_it_agrees_with_the_fast_probe_within_noise():
    """A random encoder's worth of features: noise that no probe removes, new at each look; both reach what there is."""
    generator = torch.Generator().manual_seed(0)
    mix, centres = torch.randn(24, 24, generator=generator), 0.6 * torch.randn(5, 24, generator=generator)

    def looks(clips: torch.Tensor, y: torch.Tensor, count: int) -> torch.Tensor:
        more = torch.randn(count, len(clips), 24, generator=generator)
        return torch.tanh((centres[y] + clips + 0.7 * more) @ mix / 5)

    y, truth = torch.arange(400) % 5, torch.arange(1000) % 5
    train, test = (0.5 * torch.randn(len(t), 24, generator=generator) for t in (y, truth))
    shown = looks(test, truth, 1)[0]
    bank = Bank(24, 5, {"all": None}, RECIPES["mamp"], 0, CPU)
    slow = train_bank(
        bank, lambda rows, draws: looks(train[rows], y[rows], 1)[0], torch.arange(400), y, shown, 160, 256, 1, 0
    )
    fast = fit(looks(train, y, 4), y, 5, [(0.1, 0.0)], ProbeConfig(length="160 steps"), 0).predict(shown)
    accuracies = [100 * float((p == truth).float().mean()) for p in (slow[0, 0], fast[0])]
    assert min(accuracies) > 50 and max(accuracies) < 95
    assert abs(accuracies[0] - accuracies[1]) < 4  # two binomial standard deviations of 1,000 clips are 3


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("linear:mampp", {}, "did you mean 'mamp'"),
        ("linear", {"length": "100"}, "write a number and one of"),
        ("linear", {"batch": 1}, "linear.batch=1"),
        ("linear", {"validation": 0.0}, "linear.validation="),
    ],
)
def test_bad_settings_are_refused(name, setting, message):
    with pytest.raises(BadInput, match=message):
        make_protocol(name, ProtocolConfig(linear=LinearConfig(**setting)))


def test_the_slow_and_the_fast_probe_agree_within_noise(encoder, tmp_path):
    arrays = synthetic((24,) * 240)
    rng = np.random.default_rng(0)
    arrays["joints"] += np.where(arrays["joints"] != 0, rng.normal(0, 0.06, arrays["joints"].shape), 0).astype(
        np.float32
    )
    write_store(tmp_path / "store", arrays, KINECT_V2, {"name": "synthetic", "source": "generated", "chiral": ()})
    data = open_store(tmp_path / "store")
    subject = Subject(encoder, data, split(data, "xsub"), ClipTensors(data), VIEWS, "mean")
    config = SimpleNamespace(
        linear=LinearConfig(length="60 steps", batch=32),
        probe=ProbeConfig(length="60 steps", batch=32, rates=[0.1], decays=[0.0]),
    )
    slow, fast = (make_protocol(name, config)(subject) for name in ("linear", "linear_fast"))
    truth = subject.labels[1]
    gap = (slow.predicted == truth).double() - (fast.predicted == truth).double()
    assert 60 < slow.metrics["top1"] < 95, "there must be something to disagree on"
    assert abs(float(gap.mean())) < 2 * float(gap.std()) / len(gap) ** 0.5 + 1e-9
