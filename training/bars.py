"""What weights must reach on held-out virtual patients before they are shipped, as a table of bars."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from training.strata import ALL
from training.summary import BARE, FALSE, MODEL, Row


@dataclass(frozen=True, slots=True)
class Bar:
    """A demand on a row of the tables. source: None means every source, all of which must meet it."""

    words: str
    table: str
    group: str
    figure: str
    met: Callable[[Row], bool]
    source: str | None = MODEL


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar and how it was met. row: of several, the one that comes nearest to missing it."""

    words: str
    row: Row
    met: bool


def at_least(limit: float) -> Callable[[Row], bool]:
    """The estimate reaches a limit."""
    return lambda row: row.value >= limit


def at_most(limit: float) -> Callable[[Row], bool]:
    """The estimate stays at or below a limit."""
    return lambda row: row.value <= limit


def below_zero(row: Row) -> bool:
    """The whole interval lies below 0."""
    return row.high < 0


def even(row: Row) -> bool:
    """The interval holds one half, on at least 100 strokes."""
    return row.n >= 100 and row.low <= 0.5 <= row.high


BARS = (
    Bar("Dice Tmax > 6 s, severe, at least 0.55", "regions", "class severe", "dice_hypoperfused", at_least(0.55)),
    Bar("Dice Tmax > 6 s, mild, at least 0.40", "regions", "class mild", "dice_hypoperfused", at_least(0.40)),
    Bar("Dice core, severe, at least 0.50", "regions", "class severe", "dice_core", at_least(0.50)),
    Bar("side right in at least 80 % of strokes", "regions", "with infarct", "side_right", at_least(0.80)),
    Bar("false Tmax > 6 s, none, at most 60 ml", "regions", "class none", FALSE.title, at_most(60.0)),
    *(
        Bar(f"error of {kind} below the best trivial baseline", "differences", ALL, kind, below_zero, None)
        for kind in ("CBF", "CBV", "Tmax")
    ),
    Bar("side a coin without signs, 100 strokes", "counterfactual", "with infarct", "side_right_of_found", even, BARE),
    Bar("Dice core at most 0.1 without signs", "counterfactual", "with infarct", "dice_core", at_most(0.1), BARE),
)


def judge(rows: Sequence[Row]) -> Iterator[Judged]:
    """Every bar of which the rows speak."""
    for bar in BARS:
        of = [row for row in rows if (row.table, row.group, row.figure) == (bar.table, bar.group, bar.figure)]
        of = [row for row in of if row.n and bar.source in (None, row.source)]
        if of:
            yield Judged(bar.words, max(of, key=lambda row: row.value), all(map(bar.met, of)))
