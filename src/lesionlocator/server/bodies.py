"""What the page may ask for, as types: anything else is refused before a route sees it."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lesionlocator.errors import Refused
from lesionlocator.prompt import Box, Click, Line, Prompt

_FARTHEST_MM = 1e6

Coordinate = Annotated[float, Field(ge=-_FARTHEST_MM, le=_FARTHEST_MM, allow_inf_nan=False)]
Point = tuple[Coordinate, Coordinate, Coordinate]
LesionId = Annotated[str, Field(min_length=1, max_length=64)]
Revision = Annotated[int, Field(ge=1, le=2**53)]
ScanIndex = Annotated[int, Field(ge=0, le=10_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ClickBody(_Body):
    """A point in LPS mm, in the lesion or beside it."""

    kind: Literal["click"]
    at: Point
    positive: bool = True

    def prompt(self) -> Click:
        return Click(np.array(self.at, float), self.positive)


class BoxBody(_Body):
    """A box along the LPS axes, in mm."""

    kind: Literal["box"]
    min: Point
    max: Point

    def prompt(self) -> Prompt:
        low, high = np.array(self.min, float), np.array(self.max, float)
        if not np.all(low < high):
            raise Refused(found="a box without extent", needed="each `max` above its `min`", do="draw it larger")
        return Box.from_bounds(low, high)


class LineBody(_Body):
    """A diameter, in LPS mm."""

    kind: Literal["line"] = "line"
    start: Point = Field(alias="from")
    end: Point = Field(alias="to")

    def prompt(self) -> Line:
        if self.start == self.end:
            raise Refused(found="a line of no length", needed="two different ends", do="draw it longer")
        return Line(np.array(self.start, float), np.array(self.end, float))


PromptBody = Annotated[ClickBody | BoxBody | LineBody, Field(discriminator="kind")]


class AtRevision(_Body):
    """The step of the case that the caller has seen; anything newer is a conflict."""

    revision: Revision


class OutlineBody(AtRevision):
    """A lesion to be outlined from all of its prompts."""

    scan: ScanIndex
    lesion_id: LesionId
    prompts: Annotated[list[PromptBody], Field(min_length=1, max_length=200)]


class CorrectBody(AtRevision):
    """Clicks that correct the outline which a lesion has, whatever it came from."""

    scan: ScanIndex
    lesion_id: LesionId
    clicks: Annotated[list[ClickBody], Field(min_length=1, max_length=50)]


class StrokeBody(AtRevision):
    """A ball painted into a lesion's outline, or out of it, along a line of points."""

    scan: ScanIndex
    lesion_id: LesionId
    points: Annotated[list[Point], Field(min_length=1, max_length=2000)]
    radius_mm: Annotated[float, Field(gt=0, le=200)]
    adds: bool = True


class DecideBody(AtRevision):
    """What a reader says of a lesion."""

    scan: ScanIndex
    lesion_id: LesionId
    say: Literal["accept", "reject", "remove"]


class RelateBody(AtRevision):
    """A lesion that merged into another one, or that is a part of what another one was."""

    scan: ScanIndex
    lesion_id: LesionId
    say: Literal["merged_into", "part_of"]
    other_id: LesionId


class NoteBody(AtRevision):
    """A remark beside a lesion."""

    scan: ScanIndex
    lesion_id: LesionId
    note: Annotated[str, Field(max_length=4000)]


class MeasureBody(AtRevision):
    """A diameter set by hand; without a line the one that was set is taken away."""

    scan: ScanIndex
    lesion_id: LesionId
    line: LineBody | None = None


class PlaceBody(_Body):
    """A place in one scan, wanted in another."""

    scan: ScanIndex
    to: ScanIndex
    at: Point


class AlignBody(_Body):
    """Two scans to be brought together."""

    first: ScanIndex
    last: ScanIndex


class ExportBody(AtRevision):
    """What is to be written."""

    to: Annotated[
        list[Literal["dicom-seg", "dicom-labelmap", "dicom-sr", "rtstruct", "nrrd", "sdtm"]], Field(max_length=6)
    ] = []
    criteria: Annotated[str, Field(max_length=40)] = "recist-1.1"
