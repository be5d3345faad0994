"""What the audit judges from the measures of skeletons/survey.py, a set's clips taken together.

Thresholds are limits of bodies and sensors, not of any data set.
"""

from __future__ import annotations

import numpy as np

from skeletons.clips import Clips
from skeletons.findings import NOTE, OK, PROBLEM, Finding, balance, listed, of_clips
from skeletons.survey import SAME_PLACE, Survey
from skeletons.topology import Topology

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
STEM = 0.5  # of the other joints: what chance gives a wrong parent, see `_stems` (worst of five sets' bones: 0.22)
UNSEEN = 0.5  # of a clip's joints


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
        guess = f"these are {units}" if units else "no unit makes that a person"
        found = [Finding("units", PROBLEM, f"{what} {height:.4g} m: {guess}; limits below are in metres")]
    up = measured.upright
    if np.isfinite(up).any():
        down = np.nan_to_num(up, nan=1.0) < 0
        if down.sum() > 0.5 * np.isfinite(up).sum() or np.nanmedian(up) < 0.1:
            text = f"the head is {np.nanmedian(up):+.2f} m above the hips in the median: y does not point up"
            found.append(Finding("y up", PROBLEM, text))
        else:
            fine = f"the head is {np.nanmedian(up):.2f} m above the hips in the median"
            found.append(of_clips(clips, "y up", -up, down, "show the head below the hips", fine))
    share = _stems(clips)
    strange = [clips.topology.joints[clips.topology.bones[b][0]] for b in np.argsort(-share) if share[b] > STEM]
    if not strange:
        found.append(Finding("joint order", OK, "ends of a bone keep their distance, as the tree of joints says"))
    else:
        text = f"{len(strange)} of {len(share)} bones keep their length worse than any two joints do: names, parents or"
        found.append(Finding("joint order", PROBLEM, f"{text} order of joints are wrong at {listed(strange)}"))
    return found


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _stems(clips: Clips) -> np.ndarray:
    """float (bone): the share of other joints that keep their distance to the bone's child better over time than its
    parent does, from a sample of clips. The right parent: near 0; any joint: 0.5."""
    rows = np.unique(np.linspace(0, len(clips) - 1, 200).astype(int))
    spread = np.zeros((len(clips.topology),) * 2)
    for row in rows:
        at = np.unique(np.linspace(clips.offsets[row], clips.offsets[row + 1] - 1, 16).astype(int))
        if len(at) >= 4:
            body = np.asarray(clips.frames[at])[:, int(clips.present[row].argmax())]
            spread += np.linalg.norm(body[:, :, None] - body[:, None], axis=-1).std(0)
    better = np.array([(spread[child] < spread[child, parent]).sum() - 1 for child, parent in clips.topology.bones])
    return np.maximum(better, 0) / max(len(clips.topology) - 2, 1) * (len(clips.topology) >= 6)


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
        every = np.nan_to_num(np.abs(np.log(ratio)), posinf=np.inf)
    off = every.max((1, 2))
    _, _, which = np.unravel_index(int(every.argmax()), every.shape)
    worst = clips.topology.joints[clips.topology.bones[np.flatnonzero(long)[which]][0]]
    most_off = f"{np.exp(off.max()):.2f} times"
    vary = measured.bone_std[..., long] / np.maximum(measured.bone_mean[..., long], 1e-6)
    most, usual = np.nan_to_num(vary).max((1, 2)), float(np.nanmedian(vary))
    return [
        of_clips(
            clips,
            "bone lengths",
            off,
            off > np.log(FACTOR),
            f"have a bone over {FACTOR:g} times longer or shorter than the set's median; at most {most_off} ({worst})",
            f"within {most_off} of the set's medians",
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
        f"{measured.speed[row]:.0f} m/s at most ({joint}, frame {measured.speed_at[row]} of {clips.table['clip'][row]})"
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
