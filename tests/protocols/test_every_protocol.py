"""What holds for every protocol the day it exists: the encoder stays as it was, nothing is learnt from shuffled labels,
and neither a test clip nor a test label can influence anything but the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.encoder import Encoder, EncoderConfig, make_encoder
from protocols.base import Result, Subject, all_protocols, make_protocol
from skeletons.clips import Clips, open_store, write_store
from skeletons.sampling import ClipTensors, ViewConfig
from skeletons.splits import split
from skeletons.topology import KINECT_V1, KINECT_V2
from sweeps.config import ProtocolConfig
from tests.conftest import synthetic

VIEWS = ViewConfig(frames=16)
SMALL = EncoderConfig(width=32, depth=2, heads=2, patch=4)
CLIPS, CLASSES = 120, 3
CHANCE = 100 / CLASSES
SPREAD = 100 * (1 / CLASSES * (1 - 1 / CLASSES) / (CLIPS / 2)) ** 0.5
# What must be said of a protocol to run it: an argument that it cannot do without.
ARGUMENT = {"semi": "0.5"}
# Judges the test clips by themselves, without training clips: which clips there are changes it, and must.
OF_TEST_CLIPS = {"cluster": "clusters are found among the test clips, and named by their labels to be scored"}

# What is shown of the test clips of each class, which their labels must name.
OF_TEST_CLASSES = {
    "embedding": ("attention", "attention_joints", "attention_observed", "attention_clips"),
}


def settings() -> ProtocolConfig:
    """Every protocol at a size of a second."""
    config = ProtocolConfig()
    config.probe = replace(config.probe, length="30 epochs", batch=16, crops=1)
    config.linear = replace(config.linear, length="30 epochs", batch=16)
    config.distill = replace(config.distill, width=16, steps=60, batch=16, warmup=5, lr=3e-3, timings=1)
    config.finetune = replace(config.finetune, length="30 steps", batch=12, lr=0.01, layer_decay=1.0, evaluations=1)
    config.semi = replace(config.semi, draws=2)
    return config


Maker = Callable[..., Clips]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Maker:
    """Clips whose classes differ by how far the joints swing; `change(arrays)` poisons them first."""

    def make(change: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None) -> Clips:
        arrays = synthetic((24,) * CLIPS)
        change(arrays)
        folder = Path(tmp_path_factory.mktemp("poison")) / "store"
        write_store(folder, arrays, KINECT_V2, {"name": "synthetic", "source": "generated", "chiral": ()})
        return open_store(folder)

    return make


@pytest.fixture(scope="module")
def plain(made) -> Clips:
    return made()


def encoder(kind: str = "transformer", topology=KINECT_V2) -> Encoder:
    torch.manual_seed(0)
    return make_encoder(replace(SMALL, kind=kind), topology, 16)


def judged(name: str, data: Clips, judge: Encoder | None) -> Result:
    subject = Subject(judge, data, split(data, "xsub"), ClipTensors(data), VIEWS, "mean", seed=1)
    return make_protocol(f"{name}:{ARGUMENT[name]}" if name in ARGUMENT else name, settings())(subject)


def plainly(value):
    """A result's details without what a clock says."""
    return {k: v for k, v in value.items() if "milliseconds" not in k and "speedup" not in k}


PROTOCOLS = sorted(all_protocols())


@pytest.fixture(scope="module")
def found(plain) -> Callable[[str], Result]:
    """The result of each protocol on the plain data, made once."""
    made: dict[str, Result] = {}

    def of(name: str) -> Result:
        if name not in made:
            made[name] = judged(name, plain, encoder())
        return made[name]

    return of


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(("kind", "training"), [("transformer", True), ("stgcn", False)])
def test_the_encoder_is_left_as_it_was(name, kind, training, plain):
    judge = encoder(kind).train(training)
    before = {k: v.clone() for k, v in judge.state_dict().items()}
    modes = [m.training for m in judge.modules()]
    judged(name, plain, judge)
    after = judge.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert modes == [m.training for m in judge.modules()]
    assert all(p.requires_grad and p.grad is None for p in judge.parameters())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_classes_that_differ_are_found_and_the_result_is_a_function_of_the_seed(name, plain, found):
    result, again = found(name), judged(name, plain, encoder())
    if result.predicted is not None:
        assert result.predicted.shape[-1] == CLIPS / 2 and result.predicted.max() < CLASSES
        assert torch.equal(result.predicted, again.predicted)
        assert next(iter(result.metrics.values())) > CHANCE + 4 * SPREAD
    first, second = (plainly({**r.metrics, **r.details}) for r in (result, again))
    assert first == second and result.recipe


@pytest.mark.parametrize("name", PROTOCOLS)
def test_shuffled_labels_fall_to_chance(name, made, found):
    if found(name).predicted is None:
        pytest.skip("it scores no classes")

    def shuffle(arrays):
        arrays["label"] = np.random.default_rng(5).permutation(arrays["label"])

    result = judged(name, made(shuffle), encoder())
    score = result.metrics["ari"] + CHANCE if name == "cluster" else next(iter(result.metrics.values()))
    assert abs(score - CHANCE) < 3.5 * SPREAD


@pytest.mark.parametrize("name", PROTOCOLS)
def test_test_labels_influence_nothing_but_the_score(name, made, found):
    def poison(arrays):
        test = ~arrays["train_xsub"]
        arrays["label"][test] = (arrays["label"][test] + 1) % CLASSES

    if name in OF_TEST_CLIPS:
        pytest.skip(OF_TEST_CLIPS[name])
    clean, poisoned = found(name), judged(name, made(poison), encoder())
    assert plainly(clean.details) == plainly(poisoned.details)
    for key, array in clean.arrays.items():
        if key in OF_TEST_CLASSES.get(name, ()):
            continue
        np.testing.assert_array_equal(array, poisoned.arrays[key])
    if clean.predicted is not None:
        assert torch.equal(clean.predicted, poisoned.predicted)
        assert next(iter(clean.metrics.values())) > next(iter(poisoned.metrics.values()))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_test_clips_influence_nothing_but_their_own_prediction(name, plain, made, found):
    if name in OF_TEST_CLIPS or found(name).predicted is None:
        pytest.skip(OF_TEST_CLIPS.get(name, "it gives clips no classes"))
    test = split(plain, "xsub").test
    spoilt = test[::2]

    def poison(arrays):
        of_clip = np.repeat(np.arange(CLIPS), np.diff(arrays["offsets"]))
        arrays["joints"][np.isin(of_clip, spoilt)] *= np.float32(-3)

    clean, poisoned = found(name), judged(name, made(poison), encoder())
    kept = torch.from_numpy(~np.isin(test, spoilt))
    assert torch.equal(clean.predicted[..., kept], poisoned.predicted[..., kept])
    assert plainly(clean.details) == plainly(poisoned.details)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_encoder_of_another_body_is_judged(name, plain):
    judge = encoder(topology=KINECT_V1)
    judged(name, plain, judge)
    assert judge.topology == KINECT_V1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_raw_coordinates_are_judged_where_it_says_so(name, plain):
    if not all_protocols()[name].raw:
        pytest.skip("it needs an encoder")
    assert judged(name, plain, None).metrics
