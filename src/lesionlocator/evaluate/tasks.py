"""What is asked of a case: outlines from prompts, outlines that a reader corrects, lesions followed to later visits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from lesionlocator.align import DEFAULT_ALIGNER, Aligner
from lesionlocator.case import Case, Ending, Lesion, Link, Status
from lesionlocator.errors import Refused
from lesionlocator.evaluate.data import FoundCase, TrueVisit
from lesionlocator.evaluate.following import Told, compare, identity_switches, told, true_case
from lesionlocator.evaluate.methods import COPIED, TRACKED, Alignments, Copied, find_segmenter, method_label
from lesionlocator.evaluate.prompting import Recipe, correction
from lesionlocator.evaluate.protocol import CaseFiles, Protocol
from lesionlocator.evaluate.rows import Row, score_all
from lesionlocator.prompt import Box, Click
from lesionlocator.segment import Follower, Outline, Segmenter
from lesionlocator.segment.ask import Ask
from lesionlocator.track import Following, track_case
from lesionlocator.volume import Mask, Volume

CORRECTIONS = 5
FROM_OUTLINE, FROM_BOX, VERIFIED = "outline", "box", "box, verified"
"""What tracking starts from: the true outline of the first scan (as all copies do), its tight box, or that box and a
reader's click in the deepest voxel of every lesion in every later scan. The first two are automatic.
"""


@dataclass(frozen=True, eq=False)
class Answer:
    """A row, and what it was scored on."""

    row: Row
    outline: Mask | None
    truth: Mask
    scan: Volume


@dataclass(frozen=True, eq=False)
class Story:
    """What a tracking method said to have happened to one case's lesions, beside what did, and names it changed."""

    method: str
    prompt: str
    said: list[Told]
    true: list[Told]
    switches: int
    steps: int


@dataclass(frozen=True, eq=False)
class CaseAnswers:
    """All answers about one case."""

    answers: list[Answer] = field(default_factory=list[Answer])
    stories: list[Story] = field(default_factory=list[Story])


Work = Callable[[FoundCase, Protocol], CaseAnswers]


def outline_case(case: FoundCase, protocol: Protocol) -> CaseAnswers:
    """Every lesion of every visit outlined from every kind of prompt by every method."""
    done = CaseAnswers()
    recipes = [Recipe.parse(text) for text in protocol.prompts]
    segmenters = [(method_label(name), find_segmenter(name)) for name in protocol.methods]
    for index, visit in enumerate(case.load()):
        asked = [_Asked(case.files, protocol, index, visit, recipe) for recipe in recipes]
        for method, segmenter in segmenters:
            prepared = segmenter.prepare(visit.scan)
            for one in asked:
                started = time.perf_counter()
                outlines = segmenter.outline(prepared, one.asks)
                seconds = (time.perf_counter() - started) / max(1, len(one.asks))
                for name, outline in zip(visit.lesions, outlines, strict=True):
                    done.answers.append(one.answer(name, method, outline, seconds))
    return done


def correct_case(case: FoundCase, protocol: Protocol) -> CaseAnswers:
    """Every lesion outlined, then corrected up to five times by a click in the middle of the largest error."""
    done = CaseAnswers()
    for index, visit in enumerate(case.load()):
        for recipe in (Recipe.parse(text) for text in protocol.prompts):
            asked = _Asked(case.files, protocol, index, visit, recipe)
            for method in protocol.methods:
                for name, ask in zip(visit.lesions, asked.asks, strict=True):
                    done.answers.extend(_corrected(asked, method, name, ask))
    return done


def follow_case(case: FoundCase, protocol: Protocol) -> CaseAnswers:
    """Every lesion followed from its baseline prompt: over all pairs of visits, and over the whole chain."""
    _check_methods(protocol)
    done = CaseAnswers()
    visits, alignments = case.load(), Alignments()
    for one, other in combinations(range(len(visits)), 2):
        links = [(0, a, 1, b) for i, a, j, b in case.files.links if (i, j) == (one, other)]
        truth = true_case([(visits[i].scan, visits[i].lesions) for i in (one, other)], links)
        label = f"{case.files.name} {one}-{other}" if len(visits) > 2 else case.files.name
        _follow(_Walk(case.files, label, truth, protocol, alignments), done)
    if len(visits) > 2:
        truth = true_case([(visit.scan, visit.lesions) for visit in visits], case.files.links)
        _follow(_Walk(case.files, f"{case.files.name} chain", truth, protocol, alignments), done)
    return done


TASKS: dict[str, Work] = {"outline": outline_case, "correct": correct_case, "follow": follow_case}
"""Name in a protocol -> what is done with each of its cases."""


def task_methods(protocol: Protocol, models: Sequence[str]) -> tuple[str, ...]:
    """The protocol's methods and the models that a user adds, as that task names them."""
    added = [f"{TRACKED}{model}" if protocol.task == "follow" else model for model in models]
    return tuple(dict.fromkeys([*protocol.methods, *added]))


class _Asked:
    """The lesions of one visit, each with its prompt of one kind."""

    def __init__(self, files: CaseFiles, protocol: Protocol, index: int, visit: TrueVisit, recipe: Recipe) -> None:  # noqa: PLR0913
        self.files, self.index, self.visit, self.recipe = files, index, visit, recipe
        self.asks: list[Ask] = [
            recipe.make(truth, seed=protocol.seed, name=f"{files.name} {index} {name}")
            for name, truth in visit.lesions.items()
        ]

    def answer(  # noqa: PLR0913
        self, name: str, method: str, outline: Outline, seconds: float, *, corrections: int | None = None
    ) -> Answer:
        """The scored answer about one lesion; `corrections` says after how many."""
        prompt = self.recipe.name if corrections is None else f"{self.recipe.name} corrected:{corrections}"
        truth = self.visit.lesions[name]
        scores, facts = score_all(outline.mask, truth)
        row = Row(
            data=self.files.data,
            case=self.files.name,
            patient=self.files.patient,
            lesion=name,
            kind=self.files.kind,
            modality=self.files.modality,
            method=method,
            prompt=prompt,
            visit=self.index,
            organ=self.files.organ,
            amount=self.recipe.amount if corrections is None else float(corrections),
            reason=outline.reason,
            seconds=round(seconds, 4),
            confidence=outline.confidence,
            true_ml=facts["true_ml"],
            predicted_ml=facts["predicted_ml"],
            tolerance_mm=facts["tolerance_mm"],
            scores=scores,
        )
        return Answer(row, outline.mask, truth, self.visit.scan)


def _corrected(asked: _Asked, method: str, name: str, ask: Ask) -> Iterator[Answer]:
    segmenter = find_segmenter(method)
    prepared = segmenter.prepare(asked.visit.scan)
    truth = asked.visit.lesions[name]
    for number in range(CORRECTIONS + 1):
        started = time.perf_counter()
        (outline,) = segmenter.outline(prepared, [ask])
        yield asked.answer(name, method_label(method), outline, time.perf_counter() - started, corrections=number)
        click = correction(outline.mask, truth)
        ask = ask if click is None else (*ask, click)


@dataclass(frozen=True, eq=False)
class _Walk:
    """A true case, with what its tracks are made by."""

    files: CaseFiles
    label: str
    truth: Case
    protocol: Protocol
    alignments: Alignments


def _follow(walk: _Walk, done: CaseAnswers) -> None:
    for method in walk.protocol.methods:
        for prompt in walk.protocol.prompts:
            if method in COPIED and prompt != FROM_OUTLINE:
                continue
            started = time.perf_counter()
            said = _copied(walk, COPIED[method]) if method in COPIED else _tracked(walk, method, prompt)
            seconds = round((time.perf_counter() - started) / max(1, len(walk.truth.timepoints[0].lesions)), 4)
            label = method_label(method)
            done.answers.extend(_answers(walk, said, label, prompt, seconds))
            switches, steps = identity_switches(said, walk.truth)
            events = told(said, walk.label), told(walk.truth, walk.label)
            done.stories.append(Story(label, prompt, *events, switches, steps))


def _tracked(walk: _Walk, method: str, prompt: str) -> Case:
    """The product's own tracking."""
    segmenter = find_segmenter(method.removeprefix(TRACKED))
    first, *later = walk.truth.timepoints
    if prompt != FROM_OUTLINE:
        boxes = [(lesion.id, Box.around(lesion.mask)) for lesion in first.lesions if lesion.mask is not None]
        first = first.with_lesions(tuple(Lesion(lesion_id, (box,)) for lesion_id, box in boxes))
    verified = {
        timepoint.name: [
            Lesion(lesion.id, (Click.inside(lesion.mask),)) for lesion in timepoint.lesions if lesion.mask is not None
        ]
        for timepoint in later
    }
    settings = Following(_aligner(walk, segmenter), verified if prompt == VERIFIED else {})
    visits = (first, *(timepoint.with_lesions(()) for timepoint in later))
    return track_case(Case(visits), segmenter, settings=settings)


def _aligner(walk: _Walk, segmenter: Segmenter) -> Aligner | None:
    """As in `track`: none for a model that follows lesions by itself; for any other the default, once for each pair."""
    if isinstance(segmenter, Follower):
        return None
    return lambda baseline, followup: walk.alignments(DEFAULT_ALIGNER, baseline, followup)


def _copied(walk: _Walk, method: Copied) -> Case:
    """A baseline as a case: every lesion of the first scan copied to every later one, always the same lesion."""
    first, *later = walk.truth.timepoints
    timepoints, links = [first], list[Link]()
    for index, timepoint in enumerate(later, start=1):
        here: list[Lesion] = []
        for lesion in first.lesions:
            if lesion.mask is None:
                continue
            mask = method.carry(lesion.mask, first.load(), timepoint.load(), walk.alignments)
            if mask.is_empty:
                here.append(Lesion(lesion.id, (), None, Status.OUTSIDE, "outside the scan"))
                links.append(Link((0, lesion.id), index, Ending.OUTSIDE))
                continue
            here.append(Lesion(lesion.id, (), mask, Status.OUTLINED))
            before = (index - 1, lesion.id) if timepoints[-1].lesion(lesion.id) is not None else (0, lesion.id)
            links.append(Link(before, index, (index, lesion.id)))
        timepoints.append(timepoint.with_lesions(tuple(here)))
    return Case(tuple(timepoints), tuple(links))


def _answers(walk: _Walk, said: Case, method: str, prompt: str, seconds: float) -> Iterator[Answer]:
    for found in compare(said, walk.truth):
        scores, facts = score_all(found.said, found.truth)
        row = Row(
            data=walk.files.data,
            case=walk.label,
            patient=walk.files.patient,
            lesion=found.lesion,
            kind=walk.files.kind,
            modality=walk.files.modality,
            method=method,
            prompt=prompt,
            visit=found.visit,
            organ=walk.files.organ,
            reason=found.reason,
            seconds=seconds,
            confidence=found.confidence,
            true_ml=facts["true_ml"],
            predicted_ml=facts["predicted_ml"],
            tolerance_mm=facts["tolerance_mm"],
            scores=scores,
        )
        yield Answer(row, found.said, found.truth, walk.truth.timepoints[found.visit].load())


def _check_methods(protocol: Protocol) -> None:
    for method in protocol.methods:
        if method not in COPIED and not method.startswith(TRACKED):
            raise Refused(
                found=f"the tracking method {method!r}",
                needed=f"one of {', '.join(COPIED)}, or {TRACKED}MODEL",
                do="mend the protocol",
            )
    if unknown := set(protocol.prompts) - {FROM_OUTLINE, FROM_BOX, VERIFIED}:
        raise Refused(
            found=f"the prompts {', '.join(sorted(unknown))} for tracking",
            needed=f"{FROM_OUTLINE}, {FROM_BOX} or {VERIFIED!r}",
            do="mend the protocol",
        )
