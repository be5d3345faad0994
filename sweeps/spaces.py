"""Search spaces: which settings tuning may change, and between which values; typed YAML in `conf/tune`.

    about: a line for the reader
    parameters:
      - {key: train.lr, kind: float, low: 1e-5, high: 1e-2, log: true}
      - {key: masking.tau, kind: float, low: 0.2, high: 1.5, when: {masking.strategy: motion}}
      - {key: train.warmup, kind: categorical, choices: [0 run, 0.1 run, 0.2 run]}

One space serves many methods: what a method does not read falls out of it, and is named. Where a key stands more than
once, the first line that fits is taken (a masking ratio is a number for one method, a range for another).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skeletons.errors import BadInput, check_choices, unknown
from sweeps.config import Config, select
from sweeps.groups import CONF, options
from sweeps.identity import data_of, pretraining_identity

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KINDS = ("float", "int", "categorical")
TUNED = ("method", "backbone", "decoder", "heads", "teacher", "queue", "views", "masking", "augment", "train")
DIGITS = 4  # of a number that is tried: an equal configuration is trained once, and can be typed


@dataclass
class Parameter:
    """A setting that may change.

    Attributes:
        key: dotted, as on the command line.
        kind: float, int or categorical.
        low, high: of a number, both included.
        log: draw a number's logarithm.
        step: of a number; 0 means any.
        choices: of a categorical: texts, numbers, true, false, null or lists.
        when: key -> value (or one of a list) that the start must have, else the parameter, without effect, falls out.
        along: settings that keep their ratio to this number, e.g. the last learning rate to the largest.
    """

    key: str = ""
    kind: str = "float"
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float = 0.0
    choices: list[Any] = field(default_factory=list)
    when: dict[str, Any] = field(default_factory=dict)
    along: list[str] = field(default_factory=list)

    def check(self, place: str) -> None:
        """Raises BadInput, naming the file, for what is no range and no choice.

        Args:
            place: file and parameter.
        """
        check_choices(f"{place}:", self, kind=KINDS)
        if self.kind == "categorical":
            numeric = self.low is not None or self.high is not None or self.log or self.step or self.along
            if len(self.choices) < 2 or numeric:
                raise BadInput(f"{place}: a categorical has at least two choices and no low, high, log, step or along")
            return
        if self.choices or self.low is None or self.high is None or not self.low < self.high:
            raise BadInput(f"{place}: a number has low < high, and no choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.step < 0:
            raise BadInput(f"{place}: low and high are finite, and step is not negative")
        if self.log and (self.low <= 0 or self.step):
            raise BadInput(f"{place}: log: true needs low > 0 and no step")

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna draws from; choices are drawn as texts."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "categorical":
            return CategoricalDistribution([text(choice) for choice in self.choices])
        assert self.low is not None and self.high is not None
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step) or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step or None)

    def started_at(self, value: Any) -> Parameter | str:
        """The parameter, widened so that the start lies inside, or why it cannot start there."""
        if self.kind == "categorical":
            known = [text(choice) for choice in self.choices]
            if isinstance(value, list) and not any(isinstance(choice, list) for choice in self.choices):
                return f"it is {text(value)}, a list"
            if not isinstance(value, list) and all(isinstance(choice, list) for choice in self.choices):
                return f"it is {text(value)}, no list"
            return self if text(value) in known else replace(self, choices=[value, *self.choices])
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"it is {text(value)}, no number"
        assert self.low is not None and self.high is not None
        if self.log and value <= 0:
            return f"it is {value:g}, which has no logarithm; start elsewhere with {self.key}=..."
        steps = (value - self.low) / self.step if self.step else 0.0
        on_grid = abs(steps - round(steps)) < 1e-9
        low, high = min(self.low, value), max(self.high, value)
        return replace(self, low=low, high=high, step=self.step if on_grid else 0.0)

    @property
    def ends(self) -> list[Any]:
        """Values that differ as much as any: does anything change between them?"""
        if self.kind == "categorical":
            return self.choices
        return [int(n) if self.kind == "int" else n for n in (self.low, self.high) if n is not None]

    def shown(self) -> str:
        """The range in words."""
        if self.kind == "categorical":
            return ", ".join(text(choice) for choice in self.choices)
        how = ", log" if self.log else f", step {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{how}{', whole' if self.kind == 'int' else ''}"


@dataclass
class Space:
    """Parameters that are tuned together.

    Attributes:
        name: as after `tune=`.
        parameters: of it.
        start: key -> value of the configuration that tuning starts from, as Optuna takes it.
        along: key -> the settings that keep their ratio to it, and where these start.
        dropped: key -> why it is not tuned here.
    """

    name: str
    parameters: list[Parameter]
    start: dict[str, Any] = field(default_factory=dict)
    along: dict[str, dict[str, float]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Key -> what Optuna draws from."""
        return {p.key: p.distribution for p in self.parameters}

    def overrides(self, values: dict[str, Any]) -> list[str]:
        """The command line's words for these values; none for those of the start."""
        changed = {key: value for key, value in values.items() if value != self.start[key]}
        found = [f"{key}={text(value)}" for key, value in changed.items()]
        for key, others in self.along.items():
            if key in changed:
                found += [f"{o}={text(at * changed[key] / self.start[key])}" for o, at in others.items()]
        return found


def text(value: Any) -> str:
    """A value as the command line takes it; numbers with so many digits as matter."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return f"[{','.join(map(text, value))}]" if isinstance(value, list | tuple) else str(value)


def read_space(names: str) -> Space:
    """The space of `tune=NAME`, of several (`NAME,NAME`), or of a file (`PATH.yaml`), not yet fitted to a method.

    Raises:
        BadInput: there is none, or it is not as it should be: which file, which line, and what is known.
    """
    found: list[Parameter] = []
    for name in names.split(","):
        path = Path(name) if name.endswith(".yaml") else CONF / "tune" / f"{name}.yaml"
        if not path.is_file():
            raise (
                BadInput(f"{path}: no such file") if name.endswith(".yaml") else unknown("tune", name, options("tune"))
            )
        found += _parameters(path)
    return Space("+".join(Path(name).stem for name in names.split(",")), found)


def _parameters(path: Path) -> list[Parameter]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path}: no YAML ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("parameters"), list) or not tree["parameters"]:
        raise BadInput(f"{path}: write `about: ...` and `parameters:`, a list of {{key: ..., kind: ..., ...}}")
    for key in tree:
        if key not in ("about", "parameters"):
            raise unknown(f"{path}: key", str(key), ("about", "parameters"))
    found, known = [], [f.name for f in fields(Parameter)]
    for number, entry in enumerate(tree["parameters"], 1):
        place = f"{path}: parameter {number}"
        if not isinstance(entry, dict) or not entry.get("key"):
            raise BadInput(f"{place}: write {{key: train.lr, kind: float, low: ..., high: ...}}")
        place = f"{place} ({entry['key']})"
        for key in entry:
            if key not in known:
                raise unknown(f"{place}: key", str(key), known)
        try:
            one = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Parameter), entry))
        except OmegaConfBaseException as error:
            raise BadInput(f"{place}: {str(error).splitlines()[0]}") from error
        assert isinstance(one, Parameter)
        one.check(place)
        found.append(one)
    return found


def fit_space(space: Space, config: Config, said: Collection[str]) -> Space:
    """The part of a space that a configuration has a use for, and the values it starts from.

    Whether a method reads a setting is asked of the encoder's identity: where no value changes it, nothing is tuned.

    Args:
        said: keys on the command line; what is said there stays.

    Raises:
        BadInput: an unknown key, or nothing is left.
    """
    parameters: dict[str, Parameter] = {}
    dropped: dict[str, str] = {}
    for one in space.parameters:
        if one.key in parameters:
            continue
        fitting = _fitted(one, config, said, f"tune={space.name}: {one.key}")
        if isinstance(fitting, str):
            dropped[one.key] = fitting
        else:
            parameters[one.key] = fitting
    left = {key: reason for key, reason in dropped.items() if key not in parameters}
    if not parameters:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in left.items())
        raise BadInput(f"tune={space.name}: nothing to tune for {config.method.name} ({reasons})")
    start: dict[str, Any] = {}
    for key, one in parameters.items():
        value = select(config, key)
        start[key] = text(value) if one.kind == "categorical" else int(value) if one.kind == "int" else float(value)
    along = {
        key: {
            other: _number(config, other, f"tune={space.name}: `along` of {key}")
            for other in one.along
            if other not in said
        }
        for key, one in parameters.items()
        if start[key]
    }
    return Space(space.name, list(parameters.values()), start, along, left)


def _fitted(one: Parameter, config: Config, said: Collection[str], place: str) -> Parameter | str:
    """A parameter that starts inside its range, or why it falls out."""
    if one.key in said:
        return "the command line says it"
    if one.key.startswith("method.") and not hasattr(config.method, one.key.partition(".")[2]):
        return f"{config.method.name} has no such setting"
    value = _selected(config, one.key, "the search space")
    if is_dataclass(value) or one.key == "method.name" or one.key.partition(".")[0] not in TUNED:
        raise BadInput(f"{place}: tuned are single settings of a method and its training")
    if one.kind != "categorical" and isinstance(value, int | float) and isinstance(value, int) != (one.kind == "int"):
        raise BadInput(f"{place}: it is {text(value)}, so its kind is {type(value).__name__}")
    for key, wanted in one.when.items():
        actual = _selected(config, key, f"`when` of {one.key}")
        if actual not in (wanted if isinstance(wanted, list) else [wanted]):
            return f"{key} is {text(actual)}, not {text(wanted)}"
    fitting = one.started_at(value)
    if isinstance(fitting, str):
        return fitting
    data, part = data_of(config)
    identities = set()
    for end in [value, *one.ends]:
        try:
            identities.add(pretraining_identity(replaced(config, one.key.split("."), end), data, part)[0])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{place}: it cannot be {text(end)} ({error})") from error
    return fitting if len(identities) > 1 else f"{config.method.name} does not read it"


def _selected(config: Config, key: str, where: str) -> Any:
    try:
        return select(config, key)
    except AttributeError as error:
        raise unknown(f"key in {where}", key, _keys(config)) from error


def _number(config: Config, key: str, where: str) -> float:
    value = _selected(config, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where}: {key} is no number")
    return float(value)


def replaced(config: Any, path: Sequence[str], value: Any) -> Any:
    """Nested dataclasses with another value at a path."""
    name, *rest = path
    return replace(config, **{name: replaced(getattr(config, name), rest, value) if rest else value})


def _keys(config: Any, prefix: str = "") -> list[str]:
    found: list[str] = []
    for one in fields(config):
        value = getattr(config, one.name)
        found += _keys(value, f"{prefix}{one.name}.") if hasattr(value, "__dataclass_fields__") else [prefix + one.name]
    return found
