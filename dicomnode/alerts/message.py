"""What an alert says: a JSON object that the webhook posts as it is and the e-mail puts into lines."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dicomnode.config import Settings

MOST = 20  # lines of what begins, and of what has ended

Key = tuple[str, str]


def composer(settings: Settings, words: Mapping[Key, str]) -> Callable[[Sequence[Key], Sequence[Key], int], str]:
    """How the books have a message made of what begins and what has ended. words: a sentence for each that is open."""

    def compose(begun: Sequence[Key], ended: Sequence[Key], still_open: int) -> str:
        return json.dumps(
            {
                "node": settings.node.ae_title,
                "alerts": [{"kind": kind, "subject": of, "says": words[kind, of]} for kind, of in begun],
                "resolved": [{"kind": kind, "subject": of} for kind, of in ended],
                "open": still_open,
            }
        )

    return compose


def subject(message: Mapping[str, Any]) -> str:
    """One line for a list of e-mails."""
    counted = [(len(message["alerts"]), "to look at"), (len(message["resolved"]), "resolved")]
    return f"[{message['node']}] " + ", ".join(f"{n} {what}" for n, what in counted if n)


def lines(message: Mapping[str, Any]) -> list[str]:
    """The text of an e-mail."""
    alerts, resolved = message["alerts"], message["resolved"]
    said = [f"- {each['says']}" for each in alerts[:MOST]] + _more(alerts)
    said += [f"- resolved: {each['kind']} {each['subject']}" for each in resolved[:MOST]] + _more(resolved)
    return [*said, "", f"{message['open']} open in all. `dicomnode status` and the page show more."]


def _more(several: Sequence[object]) -> list[str]:
    return [f"- and {len(several) - MOST} more"] if len(several) > MOST else []
