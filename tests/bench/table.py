"""Tables in Markdown, and ratios that are paired round by round."""

from collections.abc import Iterable, Sequence
from statistics import median


def paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs in each round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the most in brackets."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as it goes into docs/performance.md; the first column is words, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
