"""The files of `conf/` that make up a configuration, put over one another in the order of `conf/config.yaml`.

Hydra's own composition does the same, and takes ten times as long, which a table of thirty cells would wait for; a test
holds the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

from skeletons.errors import BadInput

CONF = Path(__file__).resolve().parent / "conf"
GROUPS = ("data", "method", "masking", "augment", "train", "protocol", "scale", "setting", "ablation")


def options(group: str) -> list[str]:
    """Names that `group=NAME` takes."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def chosen_files(chosen: Mapping[str, str]) -> dict[str, str]:
    """Group -> option for all files to read, in order.

    Args:
        chosen: options that the command line names; the others are the defaults.
    """
    options_of: dict[str, str | None] = dict(chosen)
    found = {}
    for entry in _defaults():
        ((group, default),) = entry.items()
        optional, group = group.startswith("optional "), group.removeprefix("optional ")
        option = options_of.setdefault(group, default) or ""
        option = re.sub(r"\$\{(\w+)\}", lambda name: str(options_of[name[1]]), option)
        if option and not (optional and option not in options(group) and not option.endswith(".yaml")):
            found[group] = option
    return found


def read(files: Mapping[str, str]) -> dict[str, Any]:
    """What these files say together; of what several say, the last."""
    return reduce(_over, [_loaded(file_of(group, option), group) for group, option in files.items()])


@cache
def _defaults() -> list[dict[str, str | None]]:
    from omegaconf import OmegaConf

    entries: Any = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"), resolve=False)
    return [entry for entry in entries["defaults"] if isinstance(entry, dict)]  # the others: the types, and this file


def file_of(group: str, option: str) -> Path:
    """The file of an option; where it is one's own, `ablation=PATH.yaml`, that."""
    return Path(option) if option.endswith(".yaml") else CONF / group / f"{option}.yaml"


@cache
def _loaded(path: Path, group: str) -> dict[str, Any]:
    """What a file says, under the sections that it is about."""
    from omegaconf import OmegaConf
    from yaml import MarkedYAMLError

    try:
        tree: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: there is no such file") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{path}, line {line}: this is no YAML ({error.problem})") from error
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: write KEY: VALUE lines")
    tree.pop("defaults", None)  # of a method's file: the types of its own fields
    return tree if path.read_text().startswith("# @package _global_") else {group: tree}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both trees in one."""
    shared = {key: below[key] for key in below if isinstance(below[key], dict) and isinstance(above.get(key), dict)}
    return {**below, **above, **{key: _over(tree, above[key]) for key, tree in shared.items()}}
