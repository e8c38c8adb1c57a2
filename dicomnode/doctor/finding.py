"""What a check says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. remedy is empty where all is well."""

    check: str
    found: str
    remedy: str = ""
