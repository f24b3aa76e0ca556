"""`lesionlocator doctor`: whether this installation works."""

from __future__ import annotations

from lesionlocator.cli.answer import Answer, checked


def doctor() -> Answer:
    """Check this installation: versions, memory, models, and a phantom lesion segmented and measured."""
    from lesionlocator.doctor import examine

    return checked(examine())
