from __future__ import annotations

import time

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from methods.base import all_methods, build
from methods.optimisation import optimizer_for
from skeletons.errors import BadInput
from skeletons.topology import KINECT_V2
from sweeps.composing import compose, from_yaml, to_yaml
from sweeps.config import Config, differing
from sweeps.costs import parts_of
from sweeps.groups import CONF, options


@pytest.mark.parametrize("scale", options("scale"))
@pytest.mark.parametrize("method", options("method"))
def test_every_method_composes_at_every_scale(method, scale):
    config = compose([f"method={method}", f"scale={scale}"])
    assert config.method.name == method
    assert config.scale == scale
    assert type(config.method) is all_methods()[method].Config


def test_every_method_has_a_file_in_the_configuration():
    assert set(options("method")) == set(all_methods())


@pytest.mark.parametrize("group", ["data", "masking", "augment", "train", "protocol", "setting", "ablation"])
def test_every_option_of_a_group_composes(group):
    for name in options(group):
        extra = ["data.split=xsub"] if name == "archive" else []
        assert isinstance(compose([f"{group}={name}", *extra]), Config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["metod=slim"], "'method'"),
        (["method=slm"], "did you mean 'slim'"),
        (["ablation=smt"], "did you mean 'stm'"),
        (["train.learning_rate=1"], "unknown key 'train.learning_rate'"),
        (["train.btch=3"], "did you mean 'train.batch'"),
        (["method.lamda_glcl=3"], "did you mean 'method.lambda_glcl'"),
        (["train.lr=abc"], "train.lr"),
        (["backbone.depth=2.5"], "backbone.depth"),
        (["scale"], "KEY=VALUE"),
        (["method=mamp", "method.lambda_glcl=1"], "unknown key"),
        (["+method=mamp"], "method=NAME"),
        (["seeds=0,1"], "seeds=0,1: a list is written 'seeds=[0,1]' with the quotes"),
        (["seeds=3"], "seeds=3: write a list, e.g. 'seeds=[0,1,2]', with the quotes"),
        (["train.lr=fast"], "train.lr=fast: write a number"),
        (["page=maybe"], "page=maybe: write true or false"),
        (["--method=mamp"], "without dashes"),
        (["masking=wave"], "unknown masking 'wave'"),
        (["protocol=semi:0.01"], "is written 'protocol.names=[semi:0.01]', with the quotes"),
        (["seeds=[0,1"], "[0,1"),
        (["+train.lr=1"], "An item is already at 'train.lr'"),
        (["data.file=???"], "missing mandatory value: file"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(overrides, message):
    with pytest.raises(BadInput) as caught:
        compose(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: x", "unknown key 'ablation.titel'; did you mean 'ablation.title'?"),
        ("cells: {a: method=mamp}", "ablation.cells.a: write a list, e.g. [method=mamp]"),
        ("cells: {a: [method=mamp\ntitle: x", "line 2: this is no YAML"),
        ("- a", "write KEY: VALUE lines"),
    ],
)
def test_a_table_of_ones_own_that_is_wrong_is_refused_by_its_place(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        compose([f"ablation={file}"])
    assert str(caught.value).startswith(str(file)) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_without_settings_is_told_from_an_unknown_one(monkeypatch):
    monkeypatch.setattr("sweeps.composing.all_methods", lambda: {"mine": None})
    monkeypatch.setattr("sweeps.composing.all_strategies", lambda: {"wave": None})
    with pytest.raises(BadInput, match=r"method 'mine' has no settings: write .*conf/method/mine.yaml"):
        compose(["method=mine"])
    with pytest.raises(BadInput, match=r"say masking.strategy=wave"):
        compose(["masking=wave"])


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=slim_released", "data=sbu", "scale=small", "setting=matched", "ablation=stm"],
        ["method=hacm", "scale=demo", "ablation=masking", "~ablation.cells.slim-cross=['method=slim','masking=cross']"],
        ["method=hacm", "scale=paper", "masking=tube", "masking.ratio=[0.2,0.4]"],
        ["method=mamp", "method=aimclr", "train=aimclr", "augment=none", "protocol=semi", "seeds=[3,4]"],
        ["method=supervised", "protocol=all", "views.locals=[{frames:8,crops:1,low:0.1,high:0.2}]", "data=ntu120"],
        ["data=archive", "data.file=/a b.npz", "data.split=xsub", "++train.lr=${train.min_lr}", "train=bf16"],
    ],
)
def test_files_are_put_together_as_hydra_does(overrides):
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, cls in all_methods().items():
        store.store(group="schema", name=name, node=cls.Config)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        expected = OmegaConf.to_object(hydra_compose("config", overrides))
    assert compose(overrides) == expected


def test_a_table_of_thirty_cells_is_put_together_in_a_moment():
    cells = compose(["ablation=masking"]).ablation.cells
    compose(["method=slim", "masking=tube"])
    began = time.process_time()
    for changes in cells.values():
        compose(changes)
    assert time.process_time() - began < 0.06 * len(cells), "Hydra itself takes longer"


def test_precedence_is_method_setting_scale_command_line():
    assert compose(["method=mamp", "scale=paper"]).views.frames == 120
    assert compose(["method=mamp", "setting=matched", "scale=paper"]).views.frames == 64
    assert compose(["method=mamp", "setting=matched", "scale=small"]).views.frames == 32
    assert compose(["method=mamp", "scale=small", "views.frames=16"]).views.frames == 16
    assert compose(["method=mamp", "masking=tube"]).masking.strategy == "tube"


def test_a_method_whose_patches_do_not_fit_a_scale_has_sizes_of_its_own_there():
    for overrides, patch, frames in (
        (["scale=paper"], 3, 72),
        (["scale=small"], 4, 32),
        (["scale=demo"], 4, 32),
        (["scale=demo", "setting=matched"], 8, 32),
        (["scale=demo", "backbone.patch=2"], 2, 32),
    ):
        config = compose(["method=hacm", *overrides])
        assert (config.backbone.patch, config.views.frames) == (patch, frames)


def test_the_papers_constants_are_there():
    slim = compose(["method=slim", "scale=paper"])
    assert (slim.backbone.width, slim.backbone.depth, slim.backbone.heads) == (256, 8, 8)
    assert (slim.heads.prototypes, slim.heads.hidden, slim.heads.bottleneck) == (65536, 2048, 256)
    assert (slim.train.batch, slim.train.lr, slim.train.min_lr, slim.teacher.momentum) == (768, 2e-4, 1e-6, 0.994)
    assert slim.masking.ratio == [0.5, 0.9]
    assert [(v.frames, v.crops) for v in slim.views.locals] == [(32, 2), (16, 2), (8, 2)]
    mamp = compose(["method=mamp", "scale=paper"])
    assert (mamp.masking.ratio, mamp.masking.tau, mamp.backbone.patch) == (0.9, 0.8, 4)
    assert (mamp.train.batch, mamp.train.lr, mamp.train.min_lr) == (128, 1e-3, 5e-4)


@pytest.mark.parametrize("method", ["skeletonclr", "aimclr", "pstl", "asma"])
def test_contrastive_papers_own_encoder_and_optimiser(method):
    preset = "aimclr" if method in ("skeletonclr", "aimclr") else "pstl"
    config = compose([f"method={method}", f"train={preset}", "scale=paper"])
    train = config.train
    assert (config.backbone.kind, config.backbone.width, config.backbone.patch) == ("stgcn", 256, 4)
    assert (train.decays, train.batch, train.clip_norm) == ("all", 128, 0)
    assert train.weight_decay == train.weight_decay_end
    if preset == "aimclr":
        assert (train.optimizer, train.lr, train.beta1, train.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
        falls, epochs = train.drops[0] * 300, (train.length, train.warmup)
        assert (train.schedule, round(falls), epochs) == ("step", 250, ("300 epochs", "0 steps"))
    else:
        assert (train.optimizer, train.lr, train.min_lr, train.weight_decay) == ("adam", 5e-3, 0, 1e-5)
        assert (train.schedule, train.length, train.warmup) == ("cosine", "150 epochs", "10 epochs")
    small = parts_of(compose([f"method={method}", f"train={preset}", "scale=demo"]), KINECT_V2, 3)
    model = build(small)
    optimizer = optimizer_for(model, train)
    assert type(optimizer).__name__.lower() == train.optimizer
    trained = [group for group in optimizer.param_groups if group["params"]]
    assert all(group["decays"] for group in trained)


@pytest.mark.parametrize("method", options("method"))
def test_a_configuration_survives_the_way_to_text_and_back(method):
    config = compose([f"method={method}", "masking.ratio=0.7", "seeds=[1,2]"])
    assert to_yaml(config) == OmegaConf.to_yaml(OmegaConf.structured(config))
    assert from_yaml(to_yaml(config)) == config


def test_only_fields_that_differ_from_their_defaults_are_kept():
    assert differing(Config().train, None) == {}
    assert differing(compose(["train.lr=5e-3", "scale=paper"]).train, None)["lr"] == 5e-3


def test_crops_of_mamps_family_have_its_least_length_and_matched_ones_are_alike():
    family = ("mamp", "skeletonmae", "gfp", "amr", "hacm", "sjepa")
    assert {compose([f"method={name}"]).views.min_frames for name in family} == {64}
    assert compose(["method=slim"]).views.min_frames == 8
    assert {compose([f"method={name}", "setting=matched"]).views.min_frames for name in (*family, "slim")} == {8}
