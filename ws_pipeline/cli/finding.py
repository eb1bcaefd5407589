"""What `ws-pipeline doctor` says about one thing that it looked at. No I/O."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at: ``ok``, ``warn`` or ``fail``, and what to do about it."""

    what: str
    state: str
    detail: str
    remedy: str = ""
