"""Scans on a DICOMweb server: found by QIDO, fetched by WADO, results stored by STOW."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from lesionlocator.errors import Refused
from lesionlocator.formats.disk import ScratchFolder

_KEPT = 64
"""How many fetched series are kept on this disk while the program runs."""
_ADDRESS = re.compile(
    r"(?P<service>https?://[^\s?#]+?)(?:/studies(?:/(?P<study>[0-9.]+)(?:/series(?:/(?P<series>[0-9.]+))?)?)?)?/?"
    r"(?:\?(?P<query>[^\s#]*))?"
)
_FILTERS = ("PatientID", "PatientName", "AccessionNumber", "StudyDate", "StudyInstanceUID", "Modality")
_SCANS = ("CT", "MR", "PT")
_MOST_STUDIES = 200


@dataclass(frozen=True)
class WebAddress:
    """A server's DICOMweb service, and what is meant there: a series, a study, or studies that a query finds."""

    service: str
    study: str = ""
    series: str = ""
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        study = f"/studies/{self.study}" if self.study else ""
        return self.service + study + (f"/series/{self.series}" if self.series else "")


@dataclass(frozen=True)
class WebSeries:
    """What a server says of one of its series."""

    address: WebAddress
    modality: str
    description: str
    images: int
    date: str
    patient: str

    def describe(self) -> str:
        """One line for a person who has to choose."""
        said = f"{self.description or 'without a name'} ({self.modality or 'no modality'}, {self.images} images"
        return f"{self.date or 'no date'} {said}, {self.address})"


def is_address(path: Path) -> bool:
    """Whether a path is what becomes of an address that was taken for one."""
    return re.match(r"https?:/", path.as_posix()) is not None


def parse_address(path: Path | str) -> WebAddress:
    """The parts of an address, also of one that lost a slash by being taken for a path."""
    text = re.sub(r"^(https?):/+", r"\1://", path.as_posix() if isinstance(path, Path) else path)
    found = _ADDRESS.fullmatch(text)
    if found is None or "@" in found["service"]:
        raise Refused(
            found=f"the address {text}" if found is None else "an address with a name or password in it",
            needed="SERVICE/studies/STUDY/series/SERIES, or a part of it from the left",
            do="correct it; names and passwords belong into your .netrc file, where no result can show them",
        )
    query = tuple(parse_qsl(found["query"] or ""))
    unknown = [name for name, _ in query if name not in _FILTERS]
    if unknown:
        raise Refused(
            found=f"the query {unknown[0]!r} in {text}", needed=f"some of {', '.join(_FILTERS)}", do="correct it"
        )
    return WebAddress(found["service"], found["study"] or "", found["series"] or "", query)


def find_web_series(address: WebAddress) -> list[WebSeries]:
    """Every series that the address means, by QIDO: of the study, or of the studies that its query finds."""
    client = _client(address.service)
    studies = [address.study] if address.study else _studies(client, address)
    found: list[WebSeries] = []
    for study in studies:
        rows = _asked(address, lambda uid=study: client.search_for_series(study_instance_uid=uid, fields=_FIELDS))
        found += [_series(address.service, study, row) for row in rows]
    wanted = [one for one in found if address.series in ("", one.address.series)]
    return sorted(wanted, key=lambda one: (one.date, one.address.study, one.address.series))


def fetch(path: Path) -> Path:
    """A folder with the one series that the address means, fetched by WADO; kept while the program runs.

    An address of a study, or of a service with a query, is enough where exactly one CT, MR or PET of more than one
    image is found there.
    """
    address = parse_address(path)
    if not address.series:
        address = _only(find_web_series(address), address)
    return _fetched(address).path


def store_files(address: str, files: Sequence[Path]) -> None:
    """Store DICOM files on a server by STOW; all of them or a refusal that names what was not taken."""
    import warnings

    from pydicom import dcmread

    service = parse_address(address)
    client = _client(service.service)
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About odd values in old headers, which are stored as they are.
            answer = _asked(service, lambda one=file: client.store_instances([dcmread(one)]))
        failed = list(answer.get("FailedSOPSequence") or ())
        if failed:
            reasons = ", ".join(str(item.get("FailureReason", "no reason")) for item in failed)
            raise Refused(
                found=f"{service.service} did not take {file} (reason {reasons})",
                needed="a server that stores objects of this kind",
                do="see the server's log for its reason",
            )


_FIELDS = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances", "SeriesDate", "StudyDate", "PatientID")


def _studies(client: Any, address: WebAddress) -> list[str]:
    filters = {name: value for name, value in address.query if name != "Modality"}
    rows = _asked(address, lambda: client.search_for_studies(search_filters=filters, limit=_MOST_STUDIES))
    return [_text(row, "0020000D") for row in rows]


def _series(service: str, study: str, row: Mapping[str, Any]) -> WebSeries:
    address = WebAddress(service, study, _text(row, "0020000E"))
    count = _text(row, "00201209")
    date = _text(row, "00080021") or _text(row, "00080020")
    day = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) == 8 else ""
    images = int(count) if count.isdecimal() else 0
    return WebSeries(address, _text(row, "00080060"), _text(row, "0008103E"), images, day, _text(row, "00100020"))


def _text(row: Mapping[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value") or [""]
    return str(values[0]).strip()


def _only(found: Sequence[WebSeries], address: WebAddress) -> WebAddress:
    wanted = dict(address.query).get("Modality")
    scans = [one for one in found if one.modality in ((wanted,) if wanted else _SCANS) and one.images != 1]
    if len(scans) == 1:
        return scans[0].address
    listed = "; ".join(one.describe() for one in (scans or found)[:12])
    raise Refused(
        found=f"{len(scans)} scans at {address} ({listed or 'no series at all'})",
        needed="one",
        do="give the address of the series, as it stands in the list",
    )


@lru_cache(maxsize=_KEPT)
def _fetched(address: WebAddress) -> ScratchFolder:
    folder = ScratchFolder()
    client = _client(address.service)
    received = _asked(address, lambda: _save(client.iter_series(address.study, address.series), folder.path))
    if not received:
        raise Refused(found=f"no image at {address}", needed="a series with images", do="check the address")
    return folder


def _save(datasets: Iterable[Any], folder: Path) -> int:
    """Under names of ours: what a header says is never a path."""
    count = 0
    for count, dataset in enumerate(datasets, start=1):
        dataset.save_as(folder / f"{count:06d}.dcm", enforce_file_format=True)
    return count


def _client(service: str) -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError:
        raise Refused(
            found="an installation without dicomweb-client",
            needed="it, to reach DICOMweb servers",
            do="install it with `pip install 'lesionlocator[dicom]'`",
        ) from None
    client = DICOMwebClient(service)
    client.set_http_retry_params(retry=False)
    return client


def _asked(address: WebAddress, ask: Any) -> Any:
    """What the server answers, or a refusal that says what it said."""
    import warnings

    import requests

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ask()
    except requests.RequestException as problem:
        said = " ".join(str(problem).split())[:300]
        raise Refused(
            found=f"{address} answered: {said}",
            needed="a DICOMweb service that can be reached and lets you in",
            do="check the address; passwords belong into your .netrc file",
        ) from problem
