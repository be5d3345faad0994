"""Where recordings come from: each source becomes a clip store in the cache, once, and is opened from there."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from skeletons import clips as store
from skeletons.clips import Clips, finish_store, open_archive, open_store, streaming_store, write_store
from skeletons.errors import BadInput, unknown
from skeletons.streams import JOINT, STREAMS
from skeletons.topology import KINECT_V2, Topology

SETS = ("irds", "nwucla", "utdmhad", "sbu")  # read from data.root/NAME.npz
NTU = ("ntu60", "ntu120")
DEMOS = ("demo", "demo20")  # generated
SOURCES = (*DEMOS, *SETS, *NTU, "archive")

# Classes that are each other's mirror image: mirroring single views would train the difference away.
CHIRAL: dict[str, tuple[tuple[str, str], ...]] = {
    "irds": (
        ("elbow flexion left", "elbow flexion right"),
        ("shoulder flexion left", "shoulder flexion right"),
        ("shoulder abduction left", "shoulder abduction right"),
        ("side tap left", "side tap right"),
    ),
    "utdmhad": (
        ("swipe left", "swipe right"),
        ("draw circle (clockwise)", "draw circle (counter clockwise)"),
    ),
}


@dataclass
class DataConfig:
    """What to read (`data=NAME` sets these).

    Attributes:
        name: demo, demo20, irds, nwucla, utdmhad, sbu, ntu60, ntu120 or archive.
        root: folder of NAME.npz for the four public sets; default ../shared/data where it exists.
        file: path of the archive for ntu60, ntu120 and archive: an .npz file, or a folder that
            `python -m skeletons.prepare` wrote.
        split: which clips train (see skeletons/splits.py).
        stream: what encoders are fed: joint, bone or motion (see skeletons/streams.py).
        cache: folder for prepared clip stores; default $SKELBENCH_CACHE or ~/.cache/skelbench.
    """

    name: str = "demo"
    root: str | None = None
    file: str | None = None
    split: str = "xsub"
    stream: str = JOINT
    cache: str | None = None


def _shared() -> Path | None:
    """`../shared/data` beside the checkout or the working folder, where it is there."""
    bases = (Path(__file__).resolve().parents[3], Path.cwd().parent)
    return next((b / "shared" / "data" for b in bases if (b / "shared" / "data").is_dir()), None)


def _file(config: DataConfig) -> Path:
    if config.name in SETS:
        root = Path(config.root) if config.root else _shared()
        if root is None:
            raise BadInput(f"data={config.name}: say where {config.name}.npz lies with data.root=DIR")
        return root / f"{config.name}.npz"
    if not config.file:
        raise BadInput(f"data={config.name}: give the archive with data.file=PATH")
    return Path(config.file)


def open_clips(config: DataConfig) -> Clips:
    """The clips that `data=...` names, from the cache or prepared now.

    Raises:
        BadInput: unknown name, a missing or damaged file, or content that cannot be used.
    """
    from skeletons.sources import archive, demo, demo20, ntu_npz  # each brings its own imports

    if config.name not in SOURCES:
        raise unknown("data", config.name, SOURCES)
    if config.stream not in STREAMS:
        raise unknown("data.stream", config.stream, STREAMS)
    if config.name in DEMOS:
        spec = demo.DemoSpec() if config.name == "demo" else demo20.SPEC
        key: object = [demo.VERSION, asdict(spec)]
        place = "generated"
    else:
        path = _file(config)
        if path.is_dir() and config.name not in SETS:
            return replace(_prepared(path, config.name), stream=config.stream)
        if not path.is_file():
            raise BadInput(f"{path}: no such file; give its place with data.root=DIR or data.file=PATH")
        stat = path.stat()
        key, place = [str(path.resolve()), stat.st_size, stat.st_mtime_ns], str(path)
    cache = Path(config.cache or os.environ.get("SKELBENCH_CACHE") or Path.home() / ".cache" / "skelbench")
    digest = hashlib.sha256(json.dumps([store.VERSION, config.name, key]).encode()).hexdigest()[:12]
    folder = cache / f"{config.name}-{digest}"
    if not (folder / "meta.json").is_file():
        if config.name in DEMOS:
            arrays = demo.generate(spec) if config.name == "demo" else demo20.generate()
            topology = _checked(arrays)
        elif config.name in NTU:
            with streaming_store(folder, KINECT_V2, persons=2) as writer:
                arrays, _ = ntu_npz.read_ntu_npz(path, writer.add)
                finish_store(writer, arrays, _about(config, place, arrays))
            return replace(open_store(folder), stream=config.stream)
        else:
            arrays, topology = archive.read_archive(path)
        write_store(folder, arrays, topology, _about(config, place, arrays))
    return replace(open_store(folder), stream=config.stream)


def _about(config: DataConfig, place: str, arrays: dict[str, np.ndarray]) -> dict[str, object]:
    """What travels with the clips beside their table."""
    chiral = CHIRAL.get(config.name) or tuple(map(tuple, arrays.get("chiral", np.empty((0, 2))).tolist()))
    notes = {k: str(arrays[k]) for k in ("license", "source", "sensor", "split_note") if k in arrays}
    return {"name": config.name, "source": place, "chiral": chiral, "notes": notes}


def _prepared(folder: Path, name: str) -> Clips:
    """An archive that `python -m skeletons.prepare` wrote: opened where it lies, its frames stay on disk."""
    clips = open_archive(folder)
    if name in NTU and clips.name != name:
        raise BadInput(f"{folder}: holds {clips.name}, not {name}; open it with data=archive or data={clips.name}")
    return clips


def _checked(arrays: dict[str, np.ndarray]) -> Topology:
    from skeletons.topology import topology_of

    store.check(arrays, "demo")
    return topology_of(arrays["joint_names"], arrays["parents"])
