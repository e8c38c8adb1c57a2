"""What became of every study, as Markdown. It names studies by their UID and stays on the site."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training.cohort.pairing import Verdict
from training.cohort.series import Series


def write(path: Path, verdicts: Sequence[Verdict], series: Sequence[Series], others: int) -> None:
    """Write the report. others: files that are no DICOM."""
    path.write_text("\n".join([*_summary(verdicts, others), *_studies(verdicts), *_series(series)]) + "\n", "utf-8")


def _summary(verdicts: Sequence[Verdict], others: int) -> list[str]:
    used = sum(not verdict.why for verdict in verdicts)
    return [
        "# Studies of this cohort",
        "",
        "Holds Study Instance UIDs beside pseudonyms: keep it on the site.",
        "",
        f"{len(verdicts)} studies: {used} used, {len(verdicts) - used} rejected; {others} files are no instances.",
        "",
    ]


def _studies(verdicts: Sequence[Verdict]) -> list[str]:
    ordered = sorted(verdicts, key=lambda verdict: (bool(verdict.why), verdict.study_instance_uid))
    rows = [
        f"| {one.study_instance_uid} | {one.patient} | {one.why or 'used'} | {_sentences(one)} |" for one in ordered
    ]
    return ["| study | patient | verdict | notes |", "|---|---|---|---|", *rows, ""]


def _series(series: Sequence[Series]) -> list[str]:
    """Why series were not looked at, commonest first."""
    why = Counter(one.why for one in series if one.role == "unused")
    return ["## Series of no use", "", *(f"- {count}: {reason}" for reason, count in why.most_common())] if why else []


def _sentences(verdict: Verdict) -> str:
    return " ".join(note[:1].upper() + note[1:].rstrip(".") + "." for note in verdict.notes)
