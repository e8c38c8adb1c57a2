"""The states of a series, a job and a delivery, and the one table of what may follow what."""

from enum import StrEnum

NO_MAPS = "no-maps"  # the route of the page that says why a study has none


class Lane(StrEnum):
    """Which queue a study's work waits in."""

    STROKE = "stroke"
    ROUTINE = "routine"


class SeriesState(StrEnum):
    """What became of a received series."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    SELECTED = "SELECTED"
    NOT_SELECTED = "NOT_SELECTED"
    REFUSED = "REFUSED"


class State(StrEnum):
    """What a job is doing."""

    QUEUED = "QUEUED"  # inputs are complete and eligible; waits for a worker
    PROCESSING = "PROCESSING"  # a worker holds the lease
    SENDING = "SENDING"  # results are on disk; deliveries are under way
    DONE = "DONE"  # every required destination has confirmed
    REJECTED = "REJECTED"  # the study is not ours to process; the reason says why
    FAILED = "FAILED"  # we gave up; the reason says why


class DeliveryState(StrEnum):
    """Where one result stands at one destination."""

    PENDING = "PENDING"
    SENT = "SENT"
    CONFIRMED = "CONFIRMED"
    REFUSED = "REFUSED"
    DEAD = "DEAD"


NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PROCESSING}),
    State.PROCESSING: frozenset({State.SENDING, State.QUEUED, State.REJECTED, State.FAILED}),
    State.SENDING: frozenset({State.DONE, State.FAILED}),  # resend makes deliveries, not transitions
    State.DONE: frozenset(),
    State.REJECTED: frozenset({State.QUEUED}),  # operator only
    State.FAILED: frozenset({State.QUEUED, State.SENDING}),  # operator only
}
OPERATOR_ONLY = frozenset({State.REJECTED, State.FAILED})


def before(after: State) -> tuple[State, ...]:
    """The states from which `after` may follow: the guard of every statement that changes a state."""
    return tuple(state for state in State if after in NEXT[state])
