"""From a configuration to pieces of work: an ablation's cells, its floors, splits and seeds."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from methods.base import method_class, refuses
from methods.checkpoint import told_with
from methods.encoder import encoder_kinds
from methods.persons import POOLINGS
from methods.released import open_encoder
from protocols.base import make_protocol
from protocols.fusion import fused_protocol
from skeletons.errors import BadInput, unknown
from skeletons.splits import folds
from skeletons.streams import JOINT
from sweeps import ranks
from sweeps.composing import compose
from sweeps.config import Config
from sweeps.groups import options
from sweeps.identity import RAW, Judgement, data_of, digest, given_identity, judgement, pretraining_identity
from sweeps.tuned import with_tuned

UNTRAINED, NATIVE = "untrained", " native"
TRANSFER = {"frozen": "linear_fast", "fine-tuned": "finetune"}


@dataclass(frozen=True)
class Work:
    """One cell on one split with one seed: an encoder to have, and protocols to judge it by.

    Attributes:
        cell: name in the table; `untrained` and `raw` are the floors.
        pretraining: identity of the encoder ("raw" where there is none).
        judgements: what to judge it by; "linear_fast native" is the one by the method's own pooling, where both are
            asked for, "transfer:utdmhad frozen" a linear probe on other data.
        config: of this piece alone: one split, one seed.
        raw: judge raw coordinates, without an encoder.
        needs: works that come first; their scores are fused, and there is no encoder.
    """

    cell: str
    split: str
    seed: int
    config: Config
    pretraining: str
    judgements: dict[str, Judgement]
    raw: bool = False
    needs: tuple[Work, ...] = ()

    @property
    def key(self) -> str:
        """Name of this piece in the queue: a piece with other results is another one."""
        return f"{self.cell}/{self.split}/{self.seed}/{self.pretraining}/{digest(self.results)}"

    @property
    def results(self) -> list[str]:
        """Identities of its results."""
        return [judgement.identity for judgement in self.judgements.values()]


def poolings_of(config: Config) -> dict[str, str]:
    """What follows a protocol's name -> the pooling it stands for; the first is watched while training."""
    wanted, native = config.protocol.pooling, config.method.pooling
    if wanted == "both":
        return {"": "mean", NATIVE: native}
    return {"": native if wanted == "native" else wanted}


def protocols_of(config: Config) -> list[str]:
    """The protocols asked for; a plain `transfer` goes to every one of `protocol.targets`.

    Raises:
        BadInput: it has nowhere to go.
    """
    found: list[str] = []
    for name in config.protocol.names:
        if name == "transfer" and not config.protocol.targets:
            raise BadInput("protocol 'transfer' needs data to go to: give protocol.targets=[NAME,...]")
        found += [f"transfer:{target}" for target in config.protocol.targets] if name == "transfer" else [name]
    return found


def judgements_of(config: Config, raw: bool = False) -> dict[str, Judgement]:
    """Everything an encoder is judged by. A transfer is judged twice, frozen and fine-tuned, always.

    Args:
        raw: raw coordinates are judged, where a protocol can.
    """
    found: dict[str, Judgement] = {}
    for suffix, pooling in poolings_of(config).items():
        for name in protocols_of(config):
            kind, _, target = name.partition(":")
            for key, protocol in TRANSFER.items() if kind == "transfer" else (("", name),):
                judge = make_protocol(protocol, config.protocol)
                if (raw and not judge.raw) or (suffix and not judge.pools):
                    continue
                one = judgement(config, protocol, pooling, target if key else "", raw)
                heading = f"{key} on {target}" if key else one.heading
                found[" ".join(filter(None, (name, key))) + suffix] = replace(one, heading=heading + suffix)
    return found


def work_of(cell: str, config: Config, raw: bool = False) -> Work:
    """The piece of work that a configuration of one split and one seed asks for.

    Args:
        raw: of raw coordinates, without an encoder.
    """
    data, part = data_of(config)
    if raw:
        identity = RAW
    else:
        identity = given_identity(config) if config.encoder else pretraining_identity(config, data, part)[0]
    return Work(cell, part.name, config.seeds[0], config, identity, judgements_of(config, raw), raw)


def works_of(cell: str, config: Config, raw: bool = False) -> list[Work]:
    """The same, or, where scores of streams are to be fused, one piece for each stream and one for all."""
    if any(fused_protocol(name, config.protocol) for name in config.protocol.names):
        from sweeps.fusion import stream_works  # it makes works, so it stands above this file

        return stream_works(cell, config, raw)
    return [work_of(cell, config, raw)]


def check_command(config: Config) -> None:
    """Refuse, before anything runs, seeds, splits and numbers of processes that cannot be, and a device that is not
    there."""
    import torch

    for name in ("cells", "seeds", "splits"):
        values = getattr(config, name)
        if len(set(values)) < len(values) or (name == "seeds" and not values):
            raise BadInput(f"{name}={values}: give each once, and at least one, e.g. 'seeds=[0,1,2]'")
    for name, value, least in (
        ("threads", config.threads, 1),
        ("workers", config.workers, 0),
        ("launch.lost", config.launch.lost, 1),
    ):
        if value < least:
            raise BadInput(f"{name}={value} must be at least {least}")
    kind, _, number = config.device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdigit())):
        raise BadInput(f"device={config.device}: known are auto, cpu, cuda and cuda:N")
    there = torch.cuda.device_count()
    if config.launcher == "local" and kind == "cuda" and int(number or 0) >= there:
        raise BadInput(f"device={config.device}: this machine has {there or 'no'} GPU(s) that torch can use")


def check(config: Config) -> None:
    """Refuse before anything runs what could only fail later."""
    config.backbone.check()
    if config.backbone.kind not in encoder_kinds():
        raise unknown("backbone.kind", config.backbone.kind, encoder_kinds())
    config.augment.check()
    config.train.check()
    config.views.check()
    ranks.check(config)
    method = method_class(config.method.name)
    for view, name in method.strategies(config.masking).items():
        reason = refuses(method, name)
        if reason:
            raise BadInput(f"masking {name!r} cannot serve the {view} view of method {method.name!r}: {reason}")
    config.masking.check()
    if not config.protocol.names:
        raise BadInput("protocol.names=[]: give at least one, e.g. 'protocol.names=[retrieval]'")
    for name in protocols_of(config):
        kind, _, target = name.partition(":")
        if fused_protocol(name, config.protocol):
            continue
        if kind != "transfer":
            make_protocol(name, config.protocol)
        elif target.partition("@")[0] not in options("data"):
            raise unknown("transfer target", target, options("data"))
    if config.protocol.pooling not in ("native", "both", *POOLINGS):
        raise unknown("protocol.pooling", config.protocol.pooling, ("native", "both", *POOLINGS))
    if config.views.frames % config.backbone.patch:
        raise BadInput(
            f"views.frames={config.views.frames} must be a multiple of backbone.patch={config.backbone.patch}"
        )
    for local in config.views.local_views() if method.local_views else ():
        if local.frames % config.backbone.patch:
            raise BadInput(
                f"views.locals: {local.frames} frames are no multiple of backbone.patch={config.backbone.patch}"
            )


def grid_cells(overrides: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split `grid.KEY=a,b,c` off the command line and cross them into cells.

    Hydra rejects the bare comma list, so this happens before it sees the line.
    """
    plain = [o for o in overrides if not o.startswith("grid.")]
    axes = []
    for override in overrides:
        if override.startswith("grid."):
            key, found, values = override.removeprefix("grid.").partition("=")
            if not found or not all(values.split(",")):
                raise BadInput(f"{override!r}: write grid.KEY=value,value,...")
            axes.append([f"{key}={value}" for value in values.split(",")])
    return plain, {" ".join(c): list(c) for c in itertools.product(*axes)} if axes else {}


def as_given(config: Config, said: Collection[str] = ()) -> Config:
    """The configuration with the shape of the encoder that it names, so that its floors have the same, and with the
    stream that it was trained on (joints, where its file names none).

    Args:
        said: keys on the command line.

    Raises:
        BadInput: no encoder, or the command line asks for another stream.
    """
    path = Path(config.encoder)
    encoder, stream = open_encoder(path), told_with(path).get("stream", JOINT)
    if "data.stream" in said and config.data.stream != stream:
        raise BadInput(f"{path}: trained on the {stream} stream; judge it with data.stream={stream}, or leave that out")
    data, views = replace(config.data, stream=stream), replace(config.views, frames=encoder.frames)
    return replace(config, backbone=encoder.config, views=views, data=data)


def splits_of(config: Config) -> list[str]:
    """Splits to run; `folds` stands for every fold of the data."""
    found: list[str] = []
    for name in config.splits or [config.data.split]:
        found += [f"fold:{k}" for k in folds(data_of(config)[0])] if name == "folds" else [name]
    return found


def layered(*layers: Sequence[str]) -> list[str]:
    """Overrides of which a later layer wins over an earlier one: an ablation's base, a cell, the command line."""
    found: list[str] = []
    for layer in layers:
        keys = {override.partition("=")[0] for override in layer}
        found = [*(override for override in found if override.partition("=")[0] not in keys), *layer]
    return found


def of_cell(config: Config, changes: Sequence[str], said: Sequence[str]) -> list[str]:
    """The overrides of an ablation's cell, which says what it is: the command line wins over it where it says more."""
    ablation = config.ablation
    return layered(ablation.at.get(config.scale, []), ablation.base, changes, said)


def composed_cells(config: Config, grid: dict[str, list[str]], line: Sequence[str]) -> tuple[dict[str, Config], Config]:
    """The configuration of every cell that is wanted, and the reference cell's, wanted or not.

    Args:
        grid: the command line's own cells.
        line: the rest of it.
    """
    cells = {"encoder": []} if config.encoder else grid or config.ablation.cells or {config.method.name: []}
    if strange := [cell for cell in config.cells if cell not in cells]:
        raise unknown("cell", strange[0], list(cells))
    if config.encoder:
        given = as_given(config, {o.partition("=")[0] for o in with_tuned(line)})
        return {"encoder": given}, given
    wanted = [cell for cell in cells if cell in config.cells] or list(cells)
    if cells is config.ablation.cells and config.ablation.reference not in ("", *cells):
        raise unknown("ablation.reference", config.ablation.reference, cells)
    reference = config.ablation.reference if config.ablation.reference in cells else next(iter(cells))
    composed = {}
    for cell in dict.fromkeys([*wanted, reference]):
        try:
            composed[cell] = compose(with_tuned(of_cell(config, cells[cell], line)))
            check(composed[cell])
        except BadInput as error:
            raise BadInput(f"cell {cell}: {error}" if len(cells) > 1 else str(error)) from error
    return {cell: composed[cell] for cell in wanted}, composed[reference]


def make_plan(overrides: Sequence[str]) -> tuple[Config, list[Work]]:
    """The configuration of the command line, and every piece of work it asks for, floors first.

    Cells come from the ablation, from `grid.*`, or are the one configuration itself. The floors are the untrained
    encoder of the reference cell and raw coordinates.
    """
    plain, grid = grid_cells(overrides)
    # Settings beside `grid.method` are the methods' own; each cell says whether it has them.
    chosen = [o for o in next(iter(grid.values()), []) if o.startswith("method=")]
    config = compose(with_tuned([*plain, *chosen]))
    if config.launcher != "local" and config.launch.gpus and config.device == "auto":
        plain.append("device=cuda")  # this machine may have none
        config = replace(config, device="cuda")
    check_command(config)
    composed, reference = composed_cells(config, grid, plain)
    if config.budget != "clips":
        from sweeps.budget import equalise  # it trains a few steps, so it stands above this file

        composed = equalise(composed, reference)
    floors = {}
    if config.ablation.floors and config.method.name != UNTRAINED:
        method = method_class(UNTRAINED).Config(name=UNTRAINED, pooling=reference.method.pooling)
        floors[UNTRAINED] = replace(reference, method=method, encoder="")
    works = []
    for name in splits_of(config):
        if config.ablation.floors:
            raw = works_of(RAW, replace(config, data=replace(reference.data, split=name)), raw=True)
            works += [work for work in raw if work.judgements]
        for seed in config.seeds:
            for cell, one in {**floors, **composed}.items():
                works += works_of(cell, replace(one, data=replace(one.data, split=name), seeds=[seed]))
    return config, works
