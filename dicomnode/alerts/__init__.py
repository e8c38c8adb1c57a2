"""Alerts: what an administrator must know while nobody looks, by e-mail and webhook, without a word of a patient.

They run beside the sweep, each channel on a thread of its own, so that a mail server that hangs holds up nothing else.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicomnode import bookkeeping
from dicomnode.alerts import mail, webhook
from dicomnode.alerts.concerns import Look, concerns
from dicomnode.alerts.message import composer
from dicomnode.bookkeeping import Books, Limits
from dicomnode.config import Settings
from dicomnode.retries import delay

log = logging.getLogger(__name__)

PERIOD = 10.0  # seconds between two looks
PAUSE = 2.0  # seconds between two looks for something to send
GIVE_UP = timedelta(days=1)

Send = Callable[[Settings, str], None]  # raises OSError or ValueError where the message was not taken

CHANNELS: dict[str, tuple[Callable[[Settings], bool], Send]] = {
    "e-mail": (lambda settings: bool(settings.alerts.email_to), mail.send),
    "webhook": (lambda settings: bool(settings.alerts.webhook_url), webhook.send),
}


def start(settings: Settings, books: Books, stop: threading.Event) -> None:
    """Look and send in the background until told to stop; nothing runs where no channel is configured."""
    channels = [name for name, (is_on, _) in CHANNELS.items() if is_on(settings)]
    if not channels:
        return
    threading.Thread(target=Watch(settings, books, channels).run, args=(stop,), name="alerts", daemon=True).start()
    for name in channels:
        sender = Sender(settings, books, name, CHANNELS[name][1])
        threading.Thread(target=sender.run, args=(stop,), name=f"alerts by {name}", daemon=True).start()


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks for what is wrong, and writes down what is to be said."""

    settings: Settings
    books: Books
    channels: Sequence[str]

    def run(self, stop: threading.Event) -> None:
        """Look again and again."""
        look = Look.of(self.settings, self.books)
        while not stop.wait(PERIOD):
            try:
                self.once(look, datetime.now(UTC))
            except Exception:  # an edge: who watches must outlive a database that is away
                log.exception("nobody could look for what is wrong; the next look follows")

    def once(self, look: Look, now: datetime) -> None:
        """One look; raises BooksAway."""
        alerts = self.settings.alerts
        limits = Limits(timedelta(minutes=alerts.apart_minutes), timedelta(hours=alerts.remind_hours))
        found = {(each.kind, each.subject): each.words for each in concerns(look, now)}
        if bookkeeping.note_alerts(self.books, found, limits, self.channels, composer(self.settings, found), now):
            log.info("there is something to tell: %d open", len(found))


@dataclass(frozen=True, slots=True)
class Sender:
    """One channel: what is to be said goes out, or is tried again ever less often for a day."""

    settings: Settings
    books: Books
    channel: str
    send: Send

    def run(self, stop: threading.Event) -> None:
        """Send again and again."""
        while not stop.wait(PAUSE):
            try:
                while self.once(datetime.now(UTC)) and not stop.is_set():
                    pass
            except Exception:  # an edge, as above
                log.exception("alerts could not be sent; the next attempt follows")

    def once(self, now: datetime) -> bool:
        """Send what is due, one message; False where there was none, or it was not taken. Raises BooksAway."""
        notice = bookkeeping.take_notice(self.books, self.channel, now)
        if notice is None:
            return False
        try:
            self.send(self.settings, notice.body)
        except (OSError, ValueError) as error:
            log.warning("an alert by %s was not taken: %s", self.channel, error)
            if now - notice.made_at < GIVE_UP:
                bookkeeping.put_off_notice(self.books, notice.id, now + delay(notice.attempts - 1))
                return False
            log.error("an alert by %s is a day old and is given up", self.channel)
        bookkeeping.end_notice(self.books, notice.id)
        return True
