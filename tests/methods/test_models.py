"""What every method owes, tested on all there are: a new file in methods/ is tested the day it exists."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from methods.base import all_methods, build, method_class
from methods.distributed import BatchNorm, of_one_rank
from methods.masking import MaskContext
from skeletons.errors import BadInput
from skeletons.randomness import Draws
from skeletons.sampling import Batch
from skeletons.topology import KINECT_V2, OPENNI

TRAINED = [name for name, cls in all_methods().items() if cls.trains]
ALL_PERSONS = [name for name in TRAINED if not all_methods()[name].one_person]
STATISTICS = {"masked", "mask_filled", "accuracy"}
# The rest of the loss has targets that move with the weights and pass no gradient: its slope is not its gradient.
WITHOUT_MOVING_TARGETS = {"aimclr": "contrast"}

each = pytest.mark.parametrize("name", TRAINED)


@pytest.fixture
def method(parts):
    """Makes a small method whose weights are a function of the seed."""

    def make(name, *topology, seed=0, **fields):
        torch.manual_seed(seed)
        return build(parts(name, *topology, **fields))

    return make


@each
@pytest.mark.parametrize("topology", [KINECT_V2, OPENNI], ids=lambda t: t.name)
def test_loss_is_finite_and_every_parameter_learns(name, topology, method, batch):
    model = method(name, topology)
    found = model.loss(batch(model, topology), Draws(0, 0))
    assert all(v.ndim == 0 and torch.isfinite(v) for v in found.values())
    assert found["loss"].requires_grad and found["loss"] > 0
    found["loss"].backward()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    assert any(p is q for p in trained.values() for q in model.encoder.parameters())
    # No exceptions: at these sizes every parameter of every method takes part in the loss.
    missing = [k for k, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not missing


@each
def test_nothing_flows_into_what_is_not_trained(name, method, batch):
    model = method(name)
    model.loss(batch(model), Draws(0, 0))["loss"].backward()
    fixed = [p for p in model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in fixed)
    if model.kept is not model.encoder:  # a teacher
        kept = list(model.kept.parameters())
        assert kept and all(any(p is q for q in fixed) for p in kept)
    assert type(model.kept) is type(model.encoder)


@each
def test_the_loss_is_a_function_of_weights_views_and_draws(name, method, batch):
    first, second = (method(name) for _ in range(2))
    views = batch(first)
    found = first.loss(views, Draws(0, 3))
    torch.manual_seed(99)  # no draw comes from a global generator
    again = second.loss(batch(second), Draws(0, 3))
    assert found.keys() == again.keys()
    assert all(torch.equal(found[k], again[k]) for k in found)
    assert not torch.equal(method(name, seed=1).loss(views, Draws(0, 3))["loss"], found["loss"])
    if first.accepts is not None:
        assert not torch.equal(first.loss(views, Draws(0, 4))["loss"], found["loss"])


@each
def test_batch_statistics_are_taken_over_all_ranks(name, method):
    assert of_one_rank(method(name)) == []
    assert of_one_rank(torch.nn.Sequential(torch.nn.BatchNorm1d(3), BatchNorm(3))) == ["0"]


@each
def test_the_parts_are_named(name, method, batch):
    found = method(name).loss(batch(method_class(name)), Draws(0, 0))
    known = {
        "slim": {"mfm", "glcl", "koleo", "masked"},
        "slim_released": {"mfm", "glcl", "koleo", "masked"},
        "skeletonmae": {"masked", "mask_filled"},
        "mamp": {"masked", "mask_filled"},
        "supervised": {"accuracy"},
        "skeletonclr": {"accuracy"},
        "aimclr": {"contrast", "d3m", "d3m_dropped", "positives"},
        "pstl": {"spatial", "temporal"},
        "asma": {"a", "b", "alignment"},
    }
    assert set(found) == {"loss"} | known.get(name, set(found))
    assert all(0 <= found[k] <= 1 for k in STATISTICS & set(found))
    if name in ("slim", "slim_released"):
        total = found["mfm"] + found["glcl"] + 0.1 * found["koleo"]
        torch.testing.assert_close(found["loss"], total)


@each
def test_a_small_step_lowers_the_loss_as_its_gradient_says(name, method, batch):
    model, part = method(name), WITHOUT_MOVING_TARGETS.get(name, "loss")
    views = batch(model)
    before = model.loss(views, Draws(0, 0))[part]
    before.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    norm = torch.stack([p.grad.norm() for p in trained]).norm()
    with torch.no_grad():
        for p in trained:
            p -= 1e-4 * p.grad / norm
        fallen = before - model.loss(views, Draws(0, 0))[part]
    assert float(fallen) == pytest.approx(1e-4 * float(norm), rel=0.3)


@each
def test_a_few_steps_lower_the_loss_on_a_fixed_batch(name, method, batch):
    model = method(name)
    views, optimizer = batch(model), torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model.loss(views, Draws(0, 0))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01


@each
def test_state_goes_round(name, method, batch):
    model, other = method(name), method(name, seed=1)
    other.load_state_dict(model.state_dict())
    views = batch(model)
    assert torch.equal(model.loss(views, Draws(0, 0))["loss"], other.loss(views, Draws(0, 0))["loss"])
    for half in (0.5, 1.0):
        other.after_step(half)
    kept, moved = model.kept.state_dict(), other.kept.state_dict()
    assert kept.keys() == moved.keys()
    assert all(torch.equal(kept[k], moved[k]) for k in kept)  # a teacher that equals its student stays where it is


@each
def test_the_configuration_is_plain_data(name, parts):
    cls = method_class(name)
    assert cls.Config().name == name
    assert all(section.split(".")[0] in vars(parts(name)) or section in ("augment", "train") for section in cls.reads)


@pytest.mark.parametrize("name", all_methods())
def test_every_method_has_an_encoder_for_its_body(name, method):
    model = method(name, OPENNI)
    tokens = model.kept.eval()(torch.randn(2, 16, 15, 3)).patches
    assert tokens.shape == (2, 4, 15, model.kept.width) and tokens.isfinite().all()
    assert model.name == name


# --- persons


@pytest.mark.parametrize("name", ALL_PERSONS)
def test_what_stands_in_an_absent_persons_place_does_not_matter(name, method, batch):
    model = method(name)
    views = batch(model)
    clip = views["clip"]
    absent = ~clip.present
    assert absent.any() and clip.present[:, 1].any()
    noise = torch.where(absent[:, :, None, None, None], torch.randn_like(clip.joints), clip.joints)
    found, other = (model.loss({"clip": c}, Draws(0, 0)) for c in (clip, replace(clip, joints=noise)))
    assert torch.equal(found["loss"], other["loss"])


@pytest.mark.parametrize("name", ALL_PERSONS)
def test_an_empty_place_for_a_second_person_changes_nothing(name, method, batch, bodies, monkeypatch):
    drawn = MaskContext.uniform

    def for_the_first_person(self, draws, *shape):  # every place draws for itself; here all draw the first one's
        views, clips, persons = self.rows
        return drawn(replace(self, rows=(views, clips, 1)), draws, *shape).repeat_interleave(persons, 0)

    monkeypatch.setattr(MaskContext, "uniform", for_the_first_person)
    model = method(name)
    views = batch(model, clips=bodies(persons=1))
    clip = views["clip"]
    padded = Batch(*(torch.cat([t, torch.zeros_like(t)], 1) for t in (clip.joints, clip.observed, clip.present)))
    padded = replace(padded, views=clip.views, labels=clip.labels)
    alone, with_place = (model.loss({"clip": c}, Draws(0, 0))["loss"] for c in (clip, padded))
    torch.testing.assert_close(alone, with_place, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in ALL_PERSONS])
def test_a_method_of_one_person_never_takes_an_absent_one(name, method, batch, bodies):
    clips = bodies()
    present = clips.present & (clips.present.cumsum(1) == 1)  # the second persons are not there any more
    model = method(name)
    alone = batch(model, clips=bodies(persons=1))
    both = batch(model, clips=replace(clips, present=present))
    assert alone.keys() == both.keys()
    for group, views in alone.items():
        assert torch.equal(views.joints, both[group].joints) and views.present.all()
    losses = [model.loss(views, Draws(0, 0))["loss"] for views in (alone, both)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["skeletonmae", "mamp"])
def test_mamps_habit_trains_on_empty_bodies(name, method, batch):
    habit, plain = (method(name, method={"persons": persons}) for persons in ("mamp", "present"))
    views = batch(habit)
    clip = views["clip"]
    filled = torch.where(clip.present[:, :, None, None, None], clip.joints, torch.ones_like(clip.joints).cumsum(2))
    empty, someone = (habit.loss({"clip": c}, Draws(0, 0))["loss"] for c in (clip, replace(clip, joints=filled)))
    assert not torch.equal(empty, someone)
    assert not torch.equal(empty, plain.loss(views, Draws(0, 0))["loss"])
    habit = method(name, method={"persons": "mamp"}, masking={"ratio": 0.9})
    empty = habit.loss(views, Draws(0, 0))["loss"]
    found = habit.loss({"clip": replace(clip, observed=torch.zeros_like(clip.observed))}, Draws(0, 0))
    assert torch.equal(found["loss"], empty)  # nothing tells the seen from the made up
    assert found["mask_filled"] == 0


# --- wrong settings


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("skeletonmae", {"method": {"persons": "presnt"}}, "did you mean 'present'"),
        ("mamp", {"method": {"stride": 0}}, "method.stride=0 must be between"),
        ("mamp", {"method": {"stride": 16}}, "method.stride=16 must be between"),
        ("mamp", {"decoder": {"width": 15}}, "decoder.width=15"),
        ("slim", {"method": {"mfm": False, "glcl": False}}, "no loss left"),
        ("slim", {"method": {"glcl": False}, "masking": {"strategy": "none"}}, "no loss left"),
        ("slim", {"backbone": {"class_token": False}}, "set backbone.class_token=true"),
        ("slim", {"backbone": {"patch": 8}}, "views.locals: 4 frames must be a multiple of backbone.patch=8"),
        ("slim", {"masking": {"local_view": "tubes"}}, "did you mean 'tube'"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(name, fields, message, method):
    with pytest.raises(BadInput, match=message):
        method(name, **fields)


def test_unknown_methods_are_refused():
    with pytest.raises(BadInput, match="did you mean 'mamp'"):
        method_class("mam")
