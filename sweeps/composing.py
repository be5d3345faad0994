"""Composing a configuration, from the files of `conf/` and the command line, with Hydra's grammar of overrides.

Precedence: method < setting < scale < ablation cell < command line. An unknown key or value is an error that names the
nearest known one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from methods.base import all_methods
from methods.masking import all_strategies
from skeletons.errors import BadInput, unknown
from sweeps.config import Config
from sweeps.groups import GROUPS, chosen_files, file_of, options, read


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that the command line asks for.

    Args:
        overrides: as Hydra takes them, e.g. `["method=mamp", "train.lr=1e-3"]`.

    Raises:
        BadInput: an unknown key or value, or one of the wrong type.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_groups(overrides)
    values = [o for o in overrides if _split_override(o)[0] not in GROUPS]
    try:
        changes = OverridesParser.create().parse_overrides(values)
        if ambiguous := [change.input_line for change in changes if change.is_sweep_override()]:
            key, _, value = str(ambiguous[0]).partition("=")
            raise BadInput(f"{key}={value}: a list is written '{key}=[{value}]' with the quotes, cells grid.{key}=...")
        node = _before_changes(overrides)
        OmegaConf.set_struct(node, True)
        ConfigLoaderImpl._apply_overrides_to_config(changes, node)
        config = OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException) as error:
        _check_keys(overrides, OmegaConf.to_container(_before_changes(overrides)))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        cause = "".join(str(error.__cause__ or "").splitlines()[:1])
        if reason.startswith("Error merging override ") and cause:
            reason = f"{reason.removeprefix('Error merging override ').strip()}: {_plainly(cause)}"
        else:
            reason = f"configuration: {reason} {_plainly(cause)}".rstrip()
        raise BadInput(reason) from error
    assert isinstance(config, Config)
    return config


def _plainly(reason: str) -> str:
    """What Hydra says of a value, for who does not know its types."""
    for theirs, ours in (
        ("is not a ListConfig", "write a list, e.g. 'seeds=[0,1,2]', with the quotes"),
        ("could not be converted to Float", "write a number, e.g. 1e-3"),
        ("could not be converted to Integer", "write a whole number"),
        ("incompatible with type hint 'typing.List", "write a list, e.g. [method=mamp]"),
        ("is not a valid bool", "write true or false"),
    ):
        if theirs in reason:
            return ours
    return reason


@cache
def _typed(method: str) -> Any:
    """All fields with their types and defaults, the method's own among them."""
    from omegaconf import OmegaConf

    node = OmegaConf.structured(Config)
    node.merge_with({"method": OmegaConf.structured(all_methods()[method].Config)})
    return node


def _before_changes(overrides: Sequence[str]) -> Any:
    """What the chosen files say, before single fields are changed."""
    from omegaconf.errors import OmegaConfBaseException

    files = chosen_files({key: value for key, value in map(_split_override, overrides) if key in GROUPS})
    node = deepcopy(_typed(files["method"]))
    try:
        node.merge_with(read(files))
    except OmegaConfBaseException as error:
        raise _in_a_file(files) or BadInput(f"configuration: {str(error).splitlines()[0]}") from error
    if "ablation" in files and not node.ablation.name:
        node.ablation.name = Path(files["ablation"]).stem
    return node


def _in_a_file(files: dict[str, str]) -> BadInput | None:
    """What is wrong in the first of the files that says something that cannot be, if one alone does."""
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    for group, option in files.items():
        node, place = deepcopy(_typed(files["method"])), file_of(group, option)
        try:
            node.merge_with(read({group: option}))
        except ConfigKeyError as error:
            section = str(error.full_key).rpartition(".")[0]
            known = [p for p in _paths(OmegaConf.to_container(node)) if p.rpartition(".")[0] == section]
            return BadInput(f"{place}: {unknown('key', str(error.full_key), known)}")
        except OmegaConfBaseException as error:
            return BadInput(f"{place}: {error.full_key}: {_plainly(str(error).splitlines()[0])}")
    return None


def to_yaml(config: Config) -> str:
    """The whole configuration as text that `from_yaml` reads back."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def from_yaml(text: str) -> Config:
    """The configuration that `to_yaml` wrote.

    Raises:
        BadInput: another version's, with fields that are not known here.
    """
    from omegaconf import OmegaConf

    return from_plain(OmegaConf.create(text))


def from_plain(read: Any) -> Config:
    """The configuration that `dataclasses.asdict` made plain. Raises as `from_yaml` does."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        node = deepcopy(_typed(read["method"]["name"]))
        node.merge_with(read)
        config = OmegaConf.to_object(node)
    except (OmegaConfBaseException, KeyError) as error:
        raise BadInput(f"a configuration of another version of SkelBench: {str(error).splitlines()[0]}") from error
    assert isinstance(config, Config)
    return config


def _split_override(override: str) -> tuple[str, str]:
    key, found, value = override.partition("=")
    if override.startswith("-"):
        raise BadInput(f"{override!r}: settings are written without dashes, e.g. method=mamp")
    if not found:
        raise BadInput(f"{override!r}: settings are written KEY=VALUE, e.g. ablation=stm or train.lr=1e-3")
    return key.lstrip("+~"), value


def _check_groups(overrides: Sequence[str]) -> None:
    """Refuse unknown names of groups' options."""
    for override in overrides:
        key, value = _split_override(override)
        if key in GROUPS and override[0] in "+~":
            raise BadInput(f"{override!r}: a file is chosen by {key}=NAME")
        if key == "protocol" and value.partition(":")[0] in options(key) and ":" in value:
            raise BadInput(f"{override}: what has an argument is written 'protocol.names=[{value}]', with the quotes")
        if key == "ablation" and value.endswith(".yaml"):
            continue  # one's own
        if key in GROUPS and value not in options(key):
            if key == "method" and value in all_methods():
                lead = f"'# @package _global_' and 'defaults: [/schema@method: {value}, _self_]'"
                raise BadInput(f"method {value!r} has no settings: write {file_of(key, value)}, beginning with {lead}")
            if key == "masking" and value in all_strategies():
                raise BadInput(f"say masking.strategy={value}; masking={value} would be {file_of(key, value)}")
            raise unknown(key, value, options(key))


def _check_keys(overrides: Sequence[str], tree: Any) -> None:
    """Refuse keys that are not in the configuration, naming the nearest."""
    known = sorted(_paths(tree))
    for override in overrides:
        key, _ = _split_override(override)
        if key not in GROUPS and key not in known:
            section = key.rpartition(".")[0]
            near = [k for k in known if k.startswith(section + ".")] if section else [k for k in known if "." not in k]
            raise unknown("key", key, near or known)


def _paths(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    found = []
    for key, value in tree.items():
        found += [f"{prefix}{key}", *_paths(value, f"{prefix}{key}.")]
    return found
