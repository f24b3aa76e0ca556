"""The one error a user can cause: what was found, what is needed, what to do."""

from __future__ import annotations


class Refused(Exception):
    """Input that cannot be used, said in three parts.

    The command line prints the three parts and exits with 2; any other exception that reaches a user is a defect of
    ours.
    """

    def __init__(self, *, found: str, needed: str, do: str) -> None:
        super().__init__(f"found {found}; needed {needed}; {do}")
        self.found = found
        self.needed = needed
        self.do = do

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling that process pools rely on.
        return (_refused, (self.found, self.needed, self.do))


def _refused(found: str, needed: str, do: str) -> Refused:
    return Refused(found=found, needed=needed, do=do)
