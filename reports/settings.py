"""What each method really uses, in its authors' setting and in the common one: `reports/make.py table=settings`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from methods.base import all_methods, method_class
from reports.formats import Table
from sweeps.composing import compose
from sweeps.config import Config
from sweeps.costs import CLIPS, JOINTS, MethodCost, cost
from sweeps.groups import options

# What a method logs beside the terms of its loss.
STATISTICS = ("loss", "masked", "mask_filled", "accuracy", "target_entropy", "guidance", "positives")
COLUMNS = [
    *("method", "setting", "frames", "patch", "tokens", "encoded", "encoder, M", "training only, M"),
    *("GFLOPs a clip", "clips a step", "steps", "augmentation", "loss terms"),
]


def augmentation_of(config: Config) -> str:
    """The common augmentations in short, geometric ones with the probability of each; not what a method does on top."""
    a = config.augment
    used = [f"{kind} {what}" for what in ("rotation", "mirroring", "scaling") if (kind := getattr(a, what)) != "none"]
    used += [f"shear {a.shear:g}"] if a.shear else []
    found = [f"{', '.join(used)} ({a.probability:g})"] if used else []
    corruptions = (a.global_1, a.global_2, a.local) if method_class(config.method.name).local_views else ()
    found += ["noise"] if any(c.noise and c.noise_probability for c in corruptions) else []
    found += ["dropped axes"] if any(c.axis_drop for c in corruptions) else []
    return ", ".join(found) or "none"


def row_of(config: Config, found: MethodCost) -> list[str]:
    """A method's row in one setting."""
    terms = ", ".join(name for name in found.terms if name not in STATISTICS) or "one"
    return [
        config.method.name,
        config.setting,
        str(config.views.frames),
        f"{config.backbone.patch} x 1",
        str(config.views.frames // config.backbone.patch * JOINTS),
        str(found.passes["encoder"].tokens) if found.step else "-",
        f"{found.encoder_parameters / 1e6:.2f}",
        f"{found.other_parameters / 1e6:.2f}",
        f"{found.total / found.batch / 1e9:.3g}" if found.step else "-",
        f"{found.batch:,}" if found.step else "-",
        f"{found.steps:,}" if found.step else "-",
        augmentation_of(config) if found.step else "-",
        terms if found.step else "-",
    ]


def settings_table(overrides: Sequence[str] = (), counted: Callable[[Config], MethodCost] = cost) -> Table:
    """Every method in both settings.

    Args:
        overrides: as for sweeps/run.py, e.g. `scale=small`; scale=paper unless another is given.
        counted: what one costs; to count all of them anew takes half a minute.
    """
    scale = [] if any(o.startswith("scale=") for o in overrides) else ["scale=paper"]
    methods = [name for name in options("method") if name in all_methods()]
    asked = [[f"method={name}", f"setting={setting}", *scale] for name in methods for setting in options("setting")]
    return settings_of([compose([*one, *overrides]) for one in asked], counted)


def settings_of(configs: Iterable[Config], counted: Callable[[Config], MethodCost] = cost) -> Table:
    """The table of these configurations.

    Args:
        counted: what one costs.
    """
    rows = [row_of(config, counted(config)) for config in configs]
    notes = [
        "encoded: tokens of the first view that the trained encoder is given (visible ones, class and register tokens)",
        "training only: parameters of decoders, heads, teachers and classifiers",
        "GFLOPs a clip: a whole training step, forward and backward, all views, two persons where a method folds them",
        f"steps: an epoch is a pass over the {CLIPS:,} training clips of NTU-60 X-Sub",
        "augmentation: in brackets the probability of each",
    ]
    return Table("settings", "What each method uses", COLUMNS, rows, notes, section="Settings")
