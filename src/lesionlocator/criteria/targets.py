"""Which lesions are measured, which are only watched, and which are new: proposed by rule, or chosen by a reader."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lesionlocator.criteria.answer import Chosen
from lesionlocator.criteria.course import UNWRITTEN, About, Course, Role, Seen, State, Visit


@dataclass(frozen=True)
class Sizes:
    """The numbers of RECIST 1.1 (Eisenhauer et al. 2009, doi:10.1016/j.ejca.2008.10.026). Lengths in mm."""

    most: int = 5
    most_an_organ: int = 2
    measurable_mm: float = 10.0
    measurable_node_mm: float = 15.0
    enlarged_node_mm: float = 10.0
    thick_slice_mm: float = 5.0
    too_small_mm: float = 5.0


RECIST_SIZES = Sizes()
_NEAR = 1e-6


def diameter_mm(seen: Seen, about: About, sizes: Sizes = RECIST_SIZES) -> float | None:
    """The diameter that counts: the short axis of a node, the long axis of anything else; None if there is none."""
    if seen.state is State.TOO_SMALL:
        own = seen.short_mm if about.is_node else seen.long_mm
        return sizes.too_small_mm if own is None else own
    if seen.state is State.ABSENT:
        return 0.0
    return None if seen.state is not State.MEASURED else seen.short_mm if about.is_node else seen.long_mm


def why_not_measurable(seen: Seen, about: About, visit: Visit, sizes: Sizes = RECIST_SIZES) -> str:
    """Why a lesion is not measurable at this visit; nothing if it is."""
    if about.unmeasurable:
        return f"not measurable: {about.unmeasurable}"
    value = diameter_mm(seen, about, sizes)
    if seen.state is not State.MEASURED or value is None:
        return "seen, but not measured"
    needed, why = _needed_mm(about, visit, sizes)
    if value < needed - _NEAR:
        axis = "short" if about.is_node else "long"
        return f"not measurable: {axis} axis {value:.1f} mm, {needed:g} mm are needed{why}"
    return ""


def choose(course: Course, sizes: Sizes = RECIST_SIZES) -> tuple[Chosen, ...]:
    """What each lesion counts as. What a reader said holds; the rest is proposed and marked as such.

    Proposed targets are measurable at baseline. The largest of each organ comes first, then the next largest, to
    represent all organs: at most two of one organ and five altogether. Where a reader chose any target, none is
    proposed. A lesion whose organ nobody said counts as an organ of its own. Nodes are one organ. All other lesions of
    the baseline are non-targets, except nodes with a short axis under 10 mm, which are normal.
    """
    fragments = {name for name in course.lesion_ids if course.root(name) != name}
    roots = [name for name in course.lesion_ids if name not in fragments]
    decided = {name: _by_reader(course.of(name)) or _by_rule(course, name, sizes) for name in roots}
    open_ = [name for name in roots if decided[name] is None]
    by_reader = any(found is not None and found.role is Role.TARGET for found in decided.values())
    proposed = () if by_reader else _proposed(course, open_, sizes)
    why = (
        "not among the targets of the reader"
        if by_reader
        else f"beyond {sizes.most} targets, {sizes.most_an_organ} an organ"
    )
    return tuple(decided[name] or _measurable(course, name, sizes, "" if name in proposed else why) for name in roots)


def warnings_about(chosen: tuple[Chosen, ...], course: Course, sizes: Sizes = RECIST_SIZES) -> list[str]:
    """What a reader should know about the choice of targets."""
    targets = [one for one in chosen if one.role is Role.TARGET]
    said: list[str] = []
    if any(one.proposed for one in targets):
        said.append("targets were proposed by rule, not chosen by a reader")
    unknown = [one.lesion_id for one in targets if not organ_of(one)]
    if len(unknown) > sizes.most_an_organ:
        said.append(
            f"nobody said in which organ lesions {', '.join(unknown)} are and which are nodes: the limit of "
            f"{sizes.most_an_organ} targets an organ was not applied to them, and their long axes count"
        )
    if len(targets) > sizes.most:
        said.append(f"{len(targets)} targets were chosen; the criterion allows {sizes.most}")
    organs = Counter(organ_of(one) for one in targets if organ_of(one))
    said += [
        f"{count} targets were chosen in {organ}; the criterion allows {sizes.most_an_organ}"
        for organ, count in sorted(organs.items())
        if count > sizes.most_an_organ
    ]
    for one in targets:
        why = why_not_measurable(
            course.at(course.baseline.name, one.lesion_id), course.of(one.lesion_id), course.baseline, sizes
        )
        if why and not one.proposed:
            said.append(f"lesion {one.lesion_id} was chosen as a target, but is {why}")
    return said


def organ_of(lesion: Chosen | About) -> str:
    """Nodes are one organ; so are the two lungs, kidneys or adrenals if the reader writes them as one."""
    return "lymph nodes" if lesion.is_node else lesion.organ.strip().lower()


def _needed_mm(about: About, visit: Visit, sizes: Sizes) -> tuple[float, str]:
    needed = sizes.measurable_node_mm if about.is_node else sizes.measurable_mm
    thick = visit.slice_mm or 0.0
    if thick > sizes.thick_slice_mm + _NEAR and 2 * thick > needed:
        return 2 * thick, f" (twice the slice thickness of {thick:g} mm)"
    return needed, ""


def _by_reader(about: About) -> Chosen | None:
    if about.role is None:
        return None
    return Chosen(about.lesion_id, about.role, "chosen by a reader", about.organ, about.is_node, proposed=False)


def _by_rule(course: Course, name: str, sizes: Sizes) -> Chosen | None:
    """The roles that leave nothing to choose; None for what could be a target."""
    about, baseline = course.of(name), course.baseline
    seen, first = course.at(baseline.name, name), course.first_seen(name)
    if not _known_at_baseline(seen):
        if first is None:
            return Chosen(name, Role.NONE, "never seen", about.organ, about.is_node)
        where = "outside the baseline scan, first" if "outside" in seen.reason else "not there at baseline, first"
        return Chosen(name, Role.NEW, f"{where} seen at {first}", about.organ, about.is_node)
    value = diameter_mm(seen, about, sizes)
    if about.is_node and value is not None and value < sizes.enlarged_node_mm - _NEAR:
        why = f"a normal node: short axis {value:.1f} mm, under {sizes.enlarged_node_mm:g} mm"
        return Chosen(name, Role.NONE, why, about.organ, about.is_node)
    if why := why_not_measurable(seen, about, baseline, sizes):
        return Chosen(name, Role.NON_TARGET, why, about.organ, about.is_node)
    return None


def _known_at_baseline(seen: Seen) -> bool:
    """Whether it was seen in the baseline scan, or somebody pointed at it there although it could not be outlined."""
    if seen.state is State.NOT_EVALUABLE:
        return seen.reason != UNWRITTEN and "outside" not in seen.reason
    return seen.state is not State.ABSENT


def _size(course: Course, name: str, sizes: Sizes) -> float:
    return diameter_mm(course.at(course.baseline.name, name), course.of(name), sizes) or 0.0


def _proposed(course: Course, names: list[str], sizes: Sizes) -> list[str]:
    """The lesions to be targets, in the order in which they are chosen."""
    by_size = sorted(names, key=lambda name: -_size(course, name, sizes))
    counts: Counter[str] = Counter()
    found: list[str] = []
    for limit in range(1, sizes.most_an_organ + 1):
        for name in by_size:
            organ = organ_of(course.of(name))
            if name not in found and len(found) < sizes.most and counts[organ] < limit:
                found.append(name)
                counts[organ] += 1 if organ else 0
    return found


def _measurable(course: Course, name: str, sizes: Sizes, why_not: str) -> Chosen:
    about = course.of(name)
    size = f"{'short' if about.is_node else 'long'} axis {_size(course, name, sizes):.1f} mm"
    if not why_not:
        return Chosen(name, Role.TARGET, f"proposed: measurable, {size}", about.organ, about.is_node)
    return Chosen(name, Role.NON_TARGET, f"measurable ({size}), {why_not}", about.organ, about.is_node)
