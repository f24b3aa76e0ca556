"""Lesions followed from scan to scan: each is looked for where it was, outlined, and linked or ended with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from lesionlocator.align import ALIGNERS, DEFAULT_ALIGNER, Aligner, Kept, Store, cached
from lesionlocator.case import Case, Ending, Lesion, Link, Place, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.follow.confidence import found_confidence, gone_confidence
from lesionlocator.follow.endings import Ended, disbelieved, outside, unseen
from lesionlocator.follow.locate import Sighting, locate_all
from lesionlocator.follow.recall import recalled, told_by_brightness
from lesionlocator.follow.scene import Rules, Scene
from lesionlocator.follow.verified import at_clicks, confirms, holds_clicks
from lesionlocator.follow.wanted import Carried, Wanted, again, doubts, taken_apart, wanted
from lesionlocator.geometry import Alignment
from lesionlocator.parts import distinct, in_one_piece, join
from lesionlocator.prompt import Click, Prompt, Shape
from lesionlocator.segment import Follower, Outline, Prepared, Rememberer, Segmenter
from lesionlocator.segment.ask import is_positive
from lesionlocator.segment.visit import outlined, segment_timepoint
from lesionlocator.volume import Mask, Volume

_CLEARLY = 0.9
"""Dice from which on brightness alone tells a lesion."""

Verified = Mapping[str, Sequence[Lesion]]
"""Scan name -> the lesions that a reader placed there; what a reader left out is gone."""


@dataclass(frozen=True)
class Following:
    """How lesions are followed."""

    align: str | Aligner | None = None
    """Name of a row of `ALIGNERS`, or a function (baseline, followup) -> Alignment. None: a model that follows lesions
    by itself does so; for any other it is the default aligner."""
    verified: Verified = field(default_factory=dict)
    """Prompts of a reader for some of the later scans."""
    rules: Rules = field(default_factory=Rules)
    """What counts as a lesion seen again."""
    maps: Store | None = None
    """Where alignments by name are kept for other runs on the same scans. A function's are not: it may have changed."""

    @property
    def aligner(self) -> Aligner:
        """What brings two scans together, asking the kept maps first."""
        align = self.align or DEFAULT_ALIGNER
        if callable(align) or self.maps is None:
            return find_aligner(align)
        return cached(find_aligner(align), self.maps, align)


def track_case(
    case: Case,
    segmenter: Segmenter,
    *,
    settings: Following | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Case:
    """Every lesion of the first scan followed through all later ones.

    Lesions of the first scan that have no outline yet are outlined from their prompts. At each later scan every lesion
    ends as an outline with a link, or as an ending with its reason; ids stay what they were. A lesion is carried from
    the last scan in which it was outlined, so one that left the scan or seemed gone is looked for again later.

    Args:
        case: Scans oldest first, with the prompts or outlines of the first.
        segmenter: Outlines the lesions.
        settings: How they are followed.
        say: Gets one line for each step of the work.

    Raises:
        Refused: No scan, no lesion, or an aligner that does not exist.
    """
    settings = settings or Following()
    if not case.timepoints or not case.timepoints[0].lesions:
        raise Refused(
            found="a case without lesions in its first scan" if case.timepoints else "a case without scans",
            needed="at least one scan and one prompted lesion",
            do="add prompts for the baseline scan",
        )
    first = case.timepoints[0]
    todo = tuple(lesion for lesion in first.lesions if lesion.mask is None and lesion.status is Status.ASKED)
    if todo:
        say(f"{first.name}: outlining {len(todo)} lesions")
        done = {lesion.id: lesion for lesion in segment_timepoint(first.with_lesions(todo), segmenter).lesions}
        first = first.with_lesions(tuple(done.get(lesion.id, lesion) for lesion in first.lesions))
    walk = _Chain((first, *case.timepoints[1:]), segmenter, settings, say)
    for index in range(1, len(case.timepoints)):
        walk.visit(index)
    return Case(tuple(walk.timepoints), (*case.links, *walk.links), (*case.warnings, *walk.warnings))


def find_aligner(align: str | Aligner) -> Aligner:
    """An aligner by name; a function is given back as it is."""
    if callable(align):
        return align
    if align not in ALIGNERS:
        names = ", ".join(ALIGNERS)
        raise Refused(found=f"the aligner {align!r}", needed=f"one of {names}", do="choose one of these with --align")
    return ALIGNERS[align]


class _Chain:
    """The state of one walk through a case's scans."""

    def __init__(
        self, timepoints: Sequence[Timepoint], segmenter: Segmenter, settings: Following, say: Callable[[str], None]
    ) -> None:
        self.timepoints = list(timepoints)
        self.segmenter, self.settings, self.say = segmenter, settings, say
        self.follower = segmenter if isinstance(segmenter, Follower) and settings.align is None else None
        self.rememberer = segmenter if isinstance(segmenter, Rememberer) else None
        self.links: list[Link] = []
        self.warnings: list[str] = []
        self.last_seen: dict[str, Place] = {
            lesion.id: (0, lesion.id) for lesion in timepoints[0].lesions if lesion.mask is not None
        }
        self.ended: dict[str, Lesion] = {}
        self._volumes: dict[int, Volume] = {}
        self._prepared: dict[int, Prepared] = {}
        self._alignments = Kept()
        self._known: dict[Place, tuple[float, float]] = {}
        for lesion in timepoints[0].lesions:
            if lesion.mask is None and len(timepoints) > 1:
                reason = f"not outlined in {timepoints[0].name}: {lesion.reason}"
                self.links.append(Link((0, lesion.id), 1, Ending.UNSURE, reason, decided_by="rule"))

    def visit(self, index: int) -> None:
        """Follow every lesion that is still looked for into scan `index`."""
        timepoint = self.timepoints[index]
        self.say(f"{timepoint.name}: following {len(self.last_seen)} lesions")
        if timepoint.name in self.settings.verified:
            lesions, links = self._by_reader(index)
        elif self.follower is not None:
            lesions, links = self._by_follower(index, self.follower)
        else:
            lesions, links = self._by_model(index, self._carry(index))
        lesions = self._in_order(lesions)
        order = {lesion.id: n for n, lesion in enumerate(lesions)}
        self.links.extend(sorted(links, key=lambda link: order.get(_name_of(link), -1)))
        self.timepoints[index] = timepoint.with_lesions(tuple(lesions))
        self._forget(index)

    def _carry(self, index: int) -> list[Carried]:
        """Every lesion seen from the scan where it was last outlined, and all of them judged together."""
        scenes: list[Scene] = []
        known: list[tuple[Place, Lesion, Mask]] = []
        for source in sorted({place[0] for place in self.last_seen.values()}):
            found = [self.timepoints[source].lesion(name) for at, name in self.last_seen.values() if at == source]
            here = [(lesion, lesion.mask) for lesion in found if lesion is not None and lesion.mask is not None]
            known.extend(((source, lesion.id), lesion, mask) for lesion, mask in here)
            alignment, masks = self._alignment(source, index), [mask for _, mask in here]
            scenes.append(Scene(self._volume(source), self._volume(index), alignment, masks, self.settings.rules))
        sightings = chain.from_iterable(locate_all(scenes))
        carried = [Carried(*each, sighting) for each, sighting in zip(known, sightings, strict=True)]
        order = {name: number for number, name in enumerate(self.last_seen)}
        return sorted(carried, key=lambda item: order[item.lesion.id])

    def _by_follower(self, index: int, follower: Follower) -> tuple[list[Lesion], list[Link]]:
        """What a model that follows lesions itself says, one scan's together; it tells no splits or merges."""
        lesions: list[Lesion] = []
        links: list[Link] = []
        for source in sorted({place[0] for place in self.last_seen.values()}):
            places = [place for place in self.last_seen.values() if place[0] == source]
            found = [self.timepoints[source].lesion(lesion_id) for _, lesion_id in places]
            masks = [lesion.mask for lesion in found if lesion is not None and lesion.mask is not None]
            answers = follower.follow(self._ready(source), self._ready(index), masks)
            for place, answer in zip(places, answers, strict=True):
                if answer.mask is None:
                    ended = Ended(Ending.OUTSIDE, "the scan does not cover its place", decided_by="model")
                    self._end(index, place, ended, lesions=lesions, links=links)
                elif answer.mask.is_empty:
                    ended = Ended(Ending.VANISHED, "the model sees nothing of it any more", decided_by="model")
                    self._end(index, place, ended, lesions=lesions, links=links)
                else:
                    lesions.append(Lesion(place[1], (), answer.mask, Status.OUTLINED))
                    links.append(Link(place, index, (index, place[1])))
                    self.ended.pop(place[1], None)
        self.last_seen.update({lesion.id: (index, lesion.id) for lesion in lesions if lesion.mask is not None})
        return lesions, links

    def _by_model(self, index: int, carried: list[Carried]) -> tuple[list[Lesion], list[Link]]:
        lesions: list[Lesion] = []
        links: list[Link] = []
        present: list[Carried] = []
        for item in carried:
            ended = self._ended_unseen(item.sighting)
            if ended is None:
                present.append(item)
            else:
                self._end(index, item.place, ended, lesions=lesions, links=links, sighting=item.sighting)
        asked = wanted(present)
        if self.rememberer is None:
            asked, answers = self._settled(index, asked, self._outlines(index, asked))
        else:
            answers = self._outlines_again(self.rememberer, index, asked)
        for want, found in zip(asked, taken_apart(asked, answers), strict=True):
            ended = disbelieved(want, found, self._volume(index)) if self.rememberer is None else None
            if ended is None:
                self._link(index, want, found, lesions=lesions, links=links)
            else:
                item = want.keeper
                self._end(index, item.place, ended, lesions=lesions, links=links, sighting=item.sighting)
        return lesions, links

    def _ended_unseen(self, sighting: Sighting) -> Ended | None:
        """What the rules say; a model that looks again with the earlier scan in memory says itself what vanished."""
        gone_outside = outside(sighting, self.settings.rules.inside_share)
        return gone_outside if gone_outside is not None or self.rememberer is not None else unseen(sighting)

    def _end(  # noqa: PLR0913
        self,
        index: int,
        place: Place,
        ended: Ended,
        *,
        lesions: list[Lesion],
        links: list[Link],
        sighting: Sighting | None = None,
    ) -> None:
        status = {Ending.OUTSIDE: Status.OUTSIDE, Ending.VANISHED: Status.ABSENT}.get(ended.ending, Status.FAILED)
        looked_for = () if ended.ending is Ending.OUTSIDE else _nothing_here(sighting)
        lesions.append(Lesion(place[1], looked_for, None, status, ended.reason))
        if self.ended.get(place[1], Lesion("")).status is not status:
            links.append(Link(place, index, ended.ending, ended.reason, ended.confidence, ended.decided_by))
        self.ended[place[1]] = lesions[-1]

    def _outlines(self, index: int, asked: Sequence[Wanted]) -> list[list[Lesion]]:
        """The one place where what a scan is asked for becomes outlines: the answers to each, one for each prompt.

        All that is wanted of a scan is handed over at once. `Wanted` has what is known of the lesions: their outline
        in the scan where they were last seen, and what was sighted here.
        """
        geometry = self.timepoints[index].geometry
        both = [(want, self._recalled(index, want)) for want in asked]
        asks = [ask for want, known in both if known is None for ask in want.asks]
        outlines = iter(self.segmenter.outline(self._ready(index), asks) if asks else ())
        answers: list[list[Lesion]] = []
        for want, known in both:
            said = [(ask, next(outlines)) for ask in want.asks] if known is None else [(want.asks[0], known)]
            answers.append([outlined(Lesion(want.keeper.lesion.id, ask), one, geometry) for ask, one in said])
        return answers

    def _settled(
        self, index: int, asked: Sequence[Wanted], answers: list[list[Lesion]]
    ) -> tuple[list[Wanted], list[list[Lesion]]]:
        """Outlines that may be one, looked at once more as one: a split or several lesions only where that is none.

        A split of a lesion that brightness tells clearly is none to doubt: a gap is a gap.
        """
        clear = {
            number for number, want in enumerate(asked) if len(want.asks) > 1 and self._told(want.keeper)[0] >= _CLEARLY
        }
        open_ones = [doubt for doubt in doubts(asked, answers) if not clear.intersection(doubt.numbers)]
        asks = [doubt.as_one.asks[0] for doubt in open_ones]
        outlines = self.segmenter.outline(self._ready(index), asks) if asks else []
        now = {number: (want, found) for number, (want, found) in enumerate(zip(asked, answers, strict=True))}
        for doubt, outline in zip(open_ones, outlines, strict=True):
            if doubt.is_settled_by(outline.mask):
                want, geometry = doubt.as_one, self.timepoints[index].geometry
                lesion = outlined(Lesion(want.keeper.lesion.id, want.asks[0]), outline, geometry)
                now = {number: each for number, each in now.items() if number not in doubt.numbers}
                now[doubt.numbers[0]] = (want, [lesion])
        return [want for want, _ in now.values()], [found for _, found in now.values()]

    def _recalled(self, index: int, want: Wanted) -> Outline | None:
        """The outline by brightness, of a lone lesion that it told better than the segmenter did where it is known.

        Of one that seemed to have split, only where its outline is in one piece after all.
        """
        sighting, followup = want.keeper.sighting, self._volume(index)
        if len(want.group) > 1 or self._volume(want.keeper.place[0]).modality != followup.modality:
            return None
        told, by_segmenter = self._told(want.keeper)
        better = told > by_segmenter
        found = recalled(sighting.carried, sighting.parts, followup, sighting.contrast) if better else None
        if found is None or (len(want.asks) > 1 and not in_one_piece(found)):
            return None
        return Outline(found, round(told, 4))

    def _told(self, item: Carried) -> tuple[float, float]:
        """How well brightness, and the segmenter, tell a lesion where it is known: Dice of each. Found once."""
        place, mask = item.place, item.mask
        if place not in self._known:
            told = told_by_brightness(mask, self._volume(place[0]), item.sighting.contrast)
            (own,) = self.segmenter.outline(self._ready(place[0]), [(Shape(mask),)])
            self._known[place] = told, 0.0 if own.mask is None else own.mask.dice(mask)
        return self._known[place]

    def _outlines_again(self, rememberer: Rememberer, index: int, asked: Sequence[Wanted]) -> list[list[Lesion]]:
        """The same by a model that has the scan in memory where the lesions were last seen."""
        found: dict[int, list[Lesion]] = {}
        for source in sorted({want.keeper.place[0] for want in asked}):
            own = [number for number, want in enumerate(asked) if want.keeper.place[0] == source]
            known = [asked[number].remembered for number in own]
            alignment = self._alignment(source, index)
            answers = rememberer.look_again(self._ready(source), self._ready(index), alignment, known)
            for number, answer in zip(own, answers, strict=True):
                found[number] = again(asked[number], answer, self.timepoints[index].geometry)
        return [found[number] for number in range(len(asked))]

    def _link(
        self, index: int, want: Wanted, answers: list[Lesion], *, lesions: list[Lesion], links: list[Link]
    ) -> None:
        """One lesion, or several that have merged, linked to its outlines; it may come out in several parts."""
        outlines = [(answer, answer.mask) for answer in answers if answer.mask is not None]
        # Two parts may turn out to be one outline.
        found = [outlines[i][0] for i in distinct([mask for _, mask in outlines])]
        if not found:
            gone = answers[0].status is Status.ABSENT
            ending = Ending.VANISHED if gone else Ending.UNSURE
            for item in want.group:
                sure = gone_confidence(item.sighting) if gone else None
                ended = Ended(ending, answers[0].reason, sure, "model")
                self._end(index, item.place, ended, lesions=lesions, links=links, sighting=item.sighting)
            return
        name = want.keeper.lesion.id
        ids = [name, *(self._fresh_id(name, n) for n in range(1, len(found)))]
        parts = [replace(lesion, id=lesion_id) for lesion_id, lesion in zip(ids, found, strict=True)]
        lesions.extend(parts)
        for item in want.group:
            confidence = found_confidence(item, join([one.mask for one in parts if one.mask is not None]))
            reason = "" if item is want.keeper else f"merged into lesion {name}"
            if item is not want.keeper:
                lesions.append(Lesion(item.lesion.id, (), None, Status.ABSENT, reason))
                self.last_seen.pop(item.lesion.id, None)
            self.ended.pop(item.lesion.id, None)
            links.extend(Link(item.place, index, (index, part.id), reason, confidence) for part in parts)
        self.last_seen.update({part.id: (index, part.id) for part in parts})

    def _by_reader(self, index: int) -> tuple[list[Lesion], list[Link]]:
        """A scan in which a reader said where the lesions are. Clicks that only say no mean that one is gone.

        What was found there and what the reader said of it are held against each other: an outline that the reader's
        prompts confirm stays, with its split or merge. A lesion that is known from before and has only clicks is
        outlined as it was, at the click; any other from the reader's prompts alone.
        """
        timepoint = self.timepoints[index]
        said = self.settings.verified[timepoint.name]
        placed = {lesion.id: lesion for lesion in said if any(is_positive(prompt) for prompt in lesion.prompts)}
        gone = {lesion.id: lesion for lesion in said if lesion.id not in placed}
        carried, found, known = self._found_beside(index, tuple(placed.values()))
        lesions = [found[name] if name in known else self._placed(index, one, carried) for name, one in placed.items()]
        links = [replace(link, confidence=1.0, decided_by="reader") for name in known for link in known[name]]
        for lesion in lesions:
            before = self.last_seen.get(lesion.id)
            if lesion.id not in known and lesion.mask is not None:
                links.append(Link(before, index, (index, lesion.id), "placed by a reader", 1.0, "reader"))
            elif lesion.mask is None and before is not None:
                links.append(Link(before, index, Ending.UNSURE, lesion.reason, None, "reader"))
        merged = {link.before[1]: _name_of(link) for link in links if link.before} if known else {}
        for name in [name for name in self.last_seen if name not in placed]:
            before = self.last_seen.pop(name)
            if name in merged:
                lesions.append(found[name])
                self.ended.pop(name, None)
                continue
            reason = "said to be gone by a reader" if name in gone else "not among the lesions that a reader placed"
            links.append(Link(before, index, Ending.VANISHED, reason, 1.0, "reader"))
            where = gone[name].prompts if name in gone else ()
            lesions.append(Lesion(name, where, None, Status.ABSENT, reason))
        for lesion in lesions:
            if lesion.mask is not None:
                self.last_seen[lesion.id] = (index, lesion.id)
                self.ended.pop(lesion.id, None)
        return lesions, links

    def _found_beside(
        self, index: int, placed: Sequence[Lesion]
    ) -> tuple[dict[str, Carried], dict[str, Lesion], dict[str, list[Link]]]:
        """What is found without the reader: lesions carried over, all by name, and the links of those confirmed."""
        clicked = any(isinstance(prompt, Click) for one in placed for prompt in one.prompts)
        if self.follower is not None or not self.last_seen or not clicked:
            return {}, {}, {}
        kept = dict(self.last_seen), dict(self.ended)
        carried = self._carry(index)
        lesions, links = self._by_model(index, carried)
        self.last_seen, self.ended = kept
        found = {lesion.id: lesion for lesion in lesions}
        outlines = [(one, found[one.id].mask) for one in placed if one.id in found]
        right = [one.id for one, mask in outlines if mask is not None and confirms(one.prompts, mask)]
        known: dict[str, list[Link]] = {name: [] for name in right}
        apart = {one.id for one in placed} - set(known)
        for link in links:
            before, after = link.before, link.after
            if before is not None and isinstance(after, tuple) and after[1] in known and before[1] not in apart:
                known[after[1]].append(link)
        return {item.lesion.id: item for item in carried}, found, known

    def _placed(self, index: int, one: Lesion, carried: Mapping[str, Carried]) -> Lesion:
        """A lesion outlined from a reader's prompts; as it was before, where there are clicks alone."""
        timepoint = self.timepoints[index]
        want = at_clicks(carried[one.id], one.prompts, timepoint.geometry) if one.id in carried else None
        if want is not None:
            ((lesion,),) = self._outlines(index, [want])
            if holds_clicks(lesion, one.prompts):
                return replace(lesion, prompts=one.prompts)
        return segment_timepoint(timepoint.with_lesions((one,)), self.segmenter, self._volume(index)).lesions[0]

    def _fresh_id(self, lesion_id: str, ahead: int) -> str:
        used = {lesion.id for timepoint in self.timepoints for lesion in timepoint.lesions} | set(self.last_seen)
        numbers = [int(name) for name in used if name.isdigit()]
        if lesion_id.isdigit():
            return str(max(numbers) + ahead)
        return next(name for n in range(ahead + 1, 10_000) if (name := f"{lesion_id}-{n}") not in used)

    def _in_order(self, lesions: list[Lesion]) -> list[Lesion]:
        known = {lesion.id: n for timepoint in self.timepoints for n, lesion in enumerate(timepoint.lesions)}
        return sorted(lesions, key=lambda lesion: known.get(lesion.id, len(known)))

    def _volume(self, index: int) -> Volume:
        if index not in self._volumes:
            self._volumes[index] = self.timepoints[index].load()
        return self._volumes[index]

    def _ready(self, index: int) -> Prepared:
        if index not in self._prepared:
            self._prepared[index] = self.segmenter.prepare(self._volume(index))
        return self._prepared[index]

    def _alignment(self, source: int, index: int) -> Alignment:
        """Neighbouring scans are aligned, each pair once; between others the way leads over those in between."""
        found = self._between_neighbours(source)
        for step in range(source + 1, index):
            found = found.then(self._between_neighbours(step))
        return found

    def _between_neighbours(self, source: int) -> Alignment:
        return self._alignments.get(source, lambda: self._aligned(source))

    def _aligned(self, source: int) -> Alignment:
        names = f"{self.timepoints[source].name} -> {self.timepoints[source + 1].name}"
        self.say(f"{names}: aligning")
        found = self.settings.aligner(self._volume(source), self._volume(source + 1))
        self.warnings.extend(f"{names}: {warning}" for warning in found.warnings)
        return found

    def _forget(self, index: int) -> None:
        """Keep only the scans that lesions will be carried from, so that long chains fit in memory."""
        needed = {place[0] for place in self.last_seen.values()} | {index}
        self._volumes = {i: volume for i, volume in self._volumes.items() if i in needed}
        self._prepared = {i: prepared for i, prepared in self._prepared.items() if i in needed}


def _name_of(link: Link) -> str:
    return link.before[1] if link.before is not None else link.after[1] if isinstance(link.after, tuple) else ""


def _nothing_here(sighting: Sighting | None) -> tuple[Prompt, ...]:
    """Where a lesion was looked for, as a click that says that nothing was there."""
    if sighting is None or sighting.carried.is_empty:
        return ()
    return (Click(sighting.carried.deepest_mm, positive=False),)
