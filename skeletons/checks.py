"""What the audit judges from the measures of skeletons/survey.py, a set's clips taken together.

`PROBLEM` is what makes numbers wrong or concerns so many clips (`MANY`) that it is how the set was made; `note` is a
clip or a few that a person should look at. Thresholds are limits of bodies and sensors, not of any data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skeletons.clips import Clips
from skeletons.survey import SAME_PLACE, Survey
from skeletons.topology import Topology

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"
MANY = 0.1  # of the clips
LONG_BONE = 0.10  # metres: shorter ones are a few times the sensor's error and say little
STATURE = (0.8, 2.2)  # metres, head to ankle along the bones, which is a little less than a person's height
# People of 1.0 to 2.0 m differ by no more from a median of 1.15 to 1.75 m, bone by bone.
FACTOR = 1.75
SIDES = 1.15  # a person's two sides are equal to 2 %; a sensor that sees one side worse errs by some more
# Standard deviation over time, of the length. A bone is rigid; Kinect's joints err by 1-3 cm where they are seen, a
# tenth of a forearm. A third is 8 cm and more: one of its ends is not where the sensor says.
RUBBER = 1 / 3
JOINT_SPEED = 20.0  # m/s: a footballer's foot; a boxer's hand reaches 12
ROOT_SPEED = 12.0  # m/s: the fastest sprinter's hips
# Steps in a row. A sensor's noise moves some coordinate in every frame of the stillest person; 5 steps are more than a
# repeated frame or two of a recorder that fell behind.
FROZEN = 5
PACE = (0.05, 5.0)  # m/s, median over clips of the liveliest joint's mean speed: standing still, and running
SHORT, LONG = 10, 300  # frames: a third of a second; what archives of NTU's kind are cut at
BACKWARDS = -0.3  # cosine, see `Survey.facing`: the feet point well behind
STEM = 0.25  # a bone's ends keep their distance better than this share of the joint's distances to others, on average
UNSEEN = 0.5  # of a clip's joints
IMBALANCE = 3.0  # clips of the largest class to those of the smallest


@dataclass(frozen=True)
class Finding:
    """One line or a few of the page.

    Attributes:
        check: what was looked at.
        status: OK, NOTE or PROBLEM.
        text: what was found, with numbers.
        names: clips, the worst first.
        count: of how many.
    """

    check: str
    status: str
    text: str
    names: tuple[str, ...] = ()
    count: int = 0


def of_clips(clips: Clips, check: str, worst: np.ndarray, bad: np.ndarray, what: str, fine: str) -> Finding:
    """A finding about single clips: ok where there are none, a problem where they are `MANY`.

    Args:
        worst: (clip), larger is named first.
        bad: bool (clip).
        what: follows "N clips (S %) "; fine: said where there are none.
    """
    count = int(bad.sum())
    if not count:
        return Finding(check, OK, fine)
    rows = np.flatnonzero(bad)
    rows = rows[np.argsort(-np.nan_to_num(worst[rows], posinf=np.inf), kind="stable")]
    status = PROBLEM if count >= MANY * len(clips) else NOTE
    return Finding(check, status, f"{_clips(count, len(clips))} {what}", tuple(clips.names(rows)), count)


def _clips(count: int, of: int) -> str:
    return f"{count} clip{'s' if count != 1 else ''} ({100 * count / of:.1f} %)"


def judge(clips: Clips, measured: Survey) -> list[Finding]:
    """All checks of the set, in the page's order."""
    return [
        *_bodies(clips, measured),
        *_sides(clips, measured),
        *_bones(clips, measured),
        *_motion(clips, measured),
        *_seeing(clips, measured),
        _second_person(clips, measured),
        *_counts(clips, measured),
    ]


def _median(lengths: np.ndarray) -> np.ndarray:
    """Median over clips and persons, NaN where a bone was never seen."""
    flat = lengths.reshape(-1, lengths.shape[-1])
    found = np.full(flat.shape[1], np.nan)
    some = np.isfinite(flat).any(0)
    found[some] = np.nanmedian(flat[:, some], axis=0)
    return found


def stature(topology: Topology, bone: np.ndarray) -> tuple[float, str]:
    """Metres from head to ankle (foot) along the bones, or along the longest path of a tree that has no such names;
    and what it is called."""
    where = {name: j for j, name in enumerate(topology.joints)}
    length = np.zeros(len(topology))
    length[[child for child, _ in topology.bones]] = np.nan_to_num(bone)
    depth = topology.ancestry @ length  # from each joint to the root
    low = next((n for n in ("ankle_left", "foot_left", "knee_left") if n in where), None)
    common = topology.ancestry[:, None] & topology.ancestry[None]
    paths = depth[:, None] + depth[None] - 2 * (common * depth).max(-1)
    if "head" in where and low is not None:
        return float(paths[where["head"], where[low]]), f"head to {low.removesuffix('_left')} along the bones"
    return float(paths.max()), "the longest way along the bones"


def _bodies(clips: Clips, measured: Survey) -> list[Finding]:
    height, what = stature(clips.topology, _median(measured.bone_mean))
    units = next((u for u, s in (("millimetres", 1000), ("centimetres", 100)) if _within(height / s, STATURE)), None)
    if _within(height, STATURE) or (what.startswith("the longest") and _within(height / 2, STATURE)):
        found = [Finding("units", OK, f"{what} {height:.2f} m: metres")]
    else:
        guess = f"the coordinates are {units}, divide them" if units else "no unit makes that a person"
        found = [Finding("units", PROBLEM, f"{what} {height:.4g} m: {guess}")]
    up = measured.upright
    if np.isfinite(up).any():
        down = np.nan_to_num(up, nan=1.0) < 0
        if down.sum() > 0.5 * np.isfinite(up).sum() or np.nanmedian(up) < 0.1:
            text = f"the head is {np.nanmedian(up):+.2f} m above the hips in the median: y does not point up"
            found.append(Finding("y up", PROBLEM, text))
        else:
            fine = f"the head is {np.nanmedian(up):.2f} m above the hips in the median"
            found.append(of_clips(clips, "y up", -up, down, "show the head below the hips", fine))
    share, strange = _stems(clips)
    if share <= STEM:
        text = "ends of a bone keep their distance, as the tree of joints says"
        found.append(Finding("joint order", OK, text))
    else:
        listed = ", ".join(strange[:4])
        text = f"bones do not keep their lengths better than any two joints do (e.g. {listed}): names, parents or order"
        found.append(Finding("joint order", PROBLEM, f"{text} of joints are wrong"))
    return found


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _stems(clips: Clips) -> tuple[float, list[str]]:
    """Mean over bones of the share of other joints that keep their distance to the child better than its parent does
    (0: none does, 0.5: chance), and the children for which most do. From a sample of clips."""
    rows = np.unique(np.linspace(0, len(clips) - 1, 200).astype(int))
    spread, count = np.zeros((len(clips.topology),) * 2), 0
    for row in rows:
        start, stop = clips.offsets[row], clips.offsets[row + 1]
        at = np.unique(np.linspace(start, stop - 1, 16).astype(int))
        person = int(clips.present[row].argmax())
        if len(at) < 4:
            continue
        body = np.asarray(clips.frames[at])[:, person]
        spread += np.linalg.norm(body[:, :, None] - body[:, None], axis=-1).std(0)
        count += 1
    if not count or len(clips.topology) < 6 or not spread.any():
        return 0.0, []
    better = [(spread[child] < spread[child, parent]).sum() - 1 for child, parent in clips.topology.bones]
    share = np.maximum(np.array(better), 0) / (len(clips.topology) - 2)
    strange = [clips.topology.joints[clips.topology.bones[b][0]] for b in np.argsort(-share)]
    return float(share.mean()), strange


def _sides(clips: Clips, measured: Survey) -> list[Finding]:
    found = []
    facing = measured.facing
    if np.isfinite(facing).any():
        middle = float(np.nanmedian(facing))
        by = "feet" if {"foot_left", "ankle_left"} <= set(clips.topology.joints) else "forearms"
        if middle < 0:
            text = (
                f"{by} point backwards (median cosine {middle:+.2f}): left and right are exchanged, or clips mirrored"
            )
            found.append(Finding("left and right", PROBLEM, text))
        else:
            what = f"have {by} that point backwards: left and right exchanged, mirrored, or mistaken by the sensor"
            fine = f"{by} point to the front that hips and shoulders say (median cosine {middle:.2f})"
            bad = np.nan_to_num(facing, nan=1.0) < BACKWARDS
            found.append(of_clips(clips, "left and right", -facing, bad, what, fine))
    bone = _median(measured.bone_mean)
    where = {name: j for j, name in enumerate(clips.topology.joints)}
    of_child = {child: b for b, (child, _) in enumerate(clips.topology.bones)}
    ratios = {}
    for name, j in where.items():
        twin = where.get(name.removesuffix("_left") + "_right")
        if name.endswith("_left") and twin is not None and j in of_child and twin in of_child:
            pair = bone[of_child[j]], bone[of_child[twin]]
            if min(pair) >= LONG_BONE:
                ratios[name.removesuffix("_left")] = max(pair) / min(pair)
    if ratios:
        worst = max(ratios, key=lambda n: ratios[n])
        text = f"left and right bones differ by {100 * (ratios[worst] - 1):.0f} % at most ({worst})"
        found.append(Finding("symmetry", OK if ratios[worst] <= SIDES else PROBLEM, text))
    return found


def _bones(clips: Clips, measured: Survey) -> list[Finding]:
    bone = _median(measured.bone_mean)
    long = np.nan_to_num(bone) >= LONG_BONE
    if not long.any():
        return [Finding("bone lengths", NOTE, f"no bone is {LONG_BONE} m long: not checked")]
    ratio = measured.bone_mean[..., long] / bone[long]
    with np.errstate(divide="ignore"):
        off = np.nan_to_num(np.abs(np.log(ratio)), posinf=np.inf).max((1, 2))
    vary = measured.bone_std[..., long] / np.maximum(measured.bone_mean[..., long], 1e-6)
    most, usual = np.nan_to_num(vary).max((1, 2)), float(np.nanmedian(vary))
    return [
        of_clips(
            clips,
            "bone lengths",
            off,
            off > np.log(FACTOR),
            f"have a bone over {FACTOR:g} times longer or shorter than the set's median",
            f"within {np.exp(off.max()):.2f} times of the set's medians",
        ),
        of_clips(
            clips,
            "rigid bones",
            most,
            most > RUBBER,
            f"have a bone whose length varies by more than a third; usual are {100 * usual:.0f} %",
            f"lengths vary by {100 * usual:.0f} % in the median, {100 * most.max():.0f} % at most",
        ),
    ]


def _motion(clips: Clips, measured: Survey) -> list[Finding]:
    fast = np.maximum(measured.speed / JOINT_SPEED, measured.root_speed / ROOT_SPEED)
    row = int(fast.argmax())
    joint = clips.topology.joints[measured.speed_joint[row]]
    worst = (
        f"{measured.speed[row]:.0f} m/s at most ({joint}, frame {measured.speed_at[row]} of {clips.names([row])[0]})"
    )
    limits = f"{JOINT_SPEED:.0f} m/s, or hips over {ROOT_SPEED:.0f}"
    pace = float(np.median(measured.pace[clips.lengths > 1])) if (clips.lengths > 1).any() else 0.0
    seconds = clips.lengths / clips.fps
    spans = "/".join(f"{s:.1f}" for s in (seconds.min(), np.median(seconds), seconds.max()))
    rate = f"{clips.fps:g} frames/s declared: clips of {spans} s (least/median/most), liveliest joint {pace:.2f} m/s"
    frozen = measured.frozen
    repeated = int(measured.repeated.sum())
    return [
        of_clips(clips, "jumps", fast, fast > 1, f"have a joint over {limits}; {worst}", worst),
        Finding(
            "frame rate",
            OK if _within(pace, PACE) else PROBLEM,
            f"{rate}{'' if _within(pace, PACE) else f', outside {PACE[0]}-{PACE[1]:g}: wrong rate or units'}",
        ),
        of_clips(
            clips,
            "frozen frames",
            frozen,
            frozen >= FROZEN,
            f"stand still to the last bit for {FROZEN + 1} frames or more (up to {frozen.max() + 1})",
            f"frames that repeat the one before exactly: {repeated or 'none'}",
        ),
    ]


def _seeing(clips: Clips, measured: Survey) -> list[Finding]:
    topology, empty = clips.topology, measured.empty
    found = [
        of_clips(
            clips,
            "empty frames",
            empty / clips.lengths,
            empty > 0,
            f"have frames that show nobody, {empty.sum()} in all",
            "somebody is seen in every frame",
        )
    ]
    always = measured.never.all(0)
    never = measured.never.any(1)
    share = measured.unseen
    told = f"{100 * share.mean():.2g} % of joints were not seen" if share.any() else "every joint of everybody was seen"
    if always.any():
        names = ", ".join(topology.joints[j] for j in np.flatnonzero(always))
        found.append(Finding("unseen joints", PROBLEM, f"never seen in any clip: {names}; {told}"))
    else:
        bad = never | (share > UNSEEN)
        what = f"have a joint that is never seen, or see less than {100 * (1 - UNSEEN):.0f} % of them; {told} in all"
        found.append(of_clips(clips, "unseen joints", share, bad, what, told))
    return found


def _second_person(clips: Clips, measured: Survey) -> Finding:
    if clips.frames.shape[1] < 2:
        return Finding("two persons", OK, "one slot only")
    two = int(clips.present[:, :2].all(1).sum())
    if measured.copied.any():
        what = "repeat the first person in the second slot byte for byte (as NTU-120 archives do); leave it empty"
        found = of_clips(clips, "two persons", measured.copied * 1.0, measured.copied, what, "")
        return Finding(found.check, PROBLEM, found.text, found.names, found.count)
    what = f"have both persons within {100 * SAME_PLACE:.0f} cm for half of the time: one body tracked twice"
    return of_clips(clips, "two persons", measured.ghost * 1.0, measured.ghost, what, f"{two} clips with two different")


def _counts(clips: Clips, measured: Survey) -> list[Finding]:
    lengths = clips.lengths
    few, many = lengths < SHORT, lengths > LONG
    what = f"are shorter than {SHORT} ({few.sum()}) or longer than {LONG} frames ({many.sum()})"
    spans = f"{lengths.min()}/{np.median(lengths):.0f}/{lengths.max()} frames (least/median/most)"
    odd = np.where(few, SHORT / np.maximum(lengths, 1), lengths / LONG)
    found = [of_clips(clips, "clip lengths", odd, few | many, f"{what}; {spans}", spans)]
    found.append(balance("class balance", clips, np.arange(len(clips))))
    subject = clips.table.get("subject")
    if subject is not None and len(np.unique(subject)) > 1:
        who, of = np.unique(subject, return_inverse=True)
        table = np.zeros((len(who), len(clips.class_names)), int)
        np.add.at(table, (of, clips.labels), 1)
        lacking = int((table[:, table.any(0)] == 0).any(1).sum())
        each = table.sum(1)
        text = f"{each.min()} to {each.max()} clips each of {len(who)}"
        text += f"; {lacking} lack a class" if lacking else "; each has every class"
        found.append(Finding("subjects", NOTE if lacking else OK, text))
    return found


def balance(check: str, clips: Clips, rows: np.ndarray, what: str = "") -> Finding:
    """How many clips the classes have among `rows`."""
    count = np.bincount(clips.labels[rows], minlength=len(clips.class_names))
    missing = [clips.class_names[c] for c in np.flatnonzero(count == 0)]
    least, most = count.argmin(), count.argmax()
    text = f"{what}{count[least]} ({clips.class_names[least]}) to {count[most]} ({clips.class_names[most]}) clips"
    if count[least] == count[most]:
        text = f"{what}{count[least]} clips of every class"
    if missing:
        return Finding(check, NOTE, f"{text}; none of {_listed(missing)}")
    uneven = count[most] > IMBALANCE * count[least]
    return Finding(check, NOTE if uneven else OK, f"{text}{': mean class accuracy will differ' if uneven else ''}")


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
