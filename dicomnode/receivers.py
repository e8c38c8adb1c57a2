"""Several receiver processes that share one listening socket, so that senders do not wait for one another's Python."""

import gc
import logging
import multiprocessing
import os
import socket
import threading
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from dicomnode import bookkeeping, notify, pulse
from dicomnode.config import Settings
from dicomnode.intake import Intake
from dicomnode.room import Room
from dicomnode.scp import Listener
from dicomnode.scp.server import Shares
from dicomnode.spool import Spool
from dicomnode.tls import server_context
from dicomnode.up import PATIENCE, PAUSE, end_with_parent, stop_on_signals
from dicomnode.vigil import Sign

log = logging.getLogger(__name__)

# A fork inherits the socket, and shares the memory of all that has been imported.
FORK = multiprocessing.get_context("fork")


@dataclass(slots=True)
class Receivers:
    """The running receivers by number. Connections wait in the socket while one of them is started again."""

    settings: Settings
    listening: socket.socket
    running: dict[int, BaseProcess] = field(default_factory=dict)
    signs: dict[int, Sign] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)

    def run(self, stop: threading.Event) -> None:
        """Keep every receiver running, and the reserve of room, until told to stop.

        The sign of life is that every receiver's accepting loop turns: without its books it still answers, by 0xA700.
        """
        pulse, fresh = notify.Pulse(), notify.fresh()
        listen = self.settings.listen
        room = Room(self.settings.node.data_dir, int(listen.keep_free_gib * 2**30))
        self.shares = Shares(listen.processes)
        for number in range(1, listen.processes + 1):
            self.running[number] = self._start(number)
        while not stop.wait(PAUSE):
            room.look_after_reserve()
            for number, process in list(self.running.items()):
                if not process.is_alive():
                    log.error("receiver %d ended with exit code %s; starting it again", number, process.exitcode)
                    process.close()
                    self.running[number] = self._start(number)
            if all(sign.is_fresh(fresh) for sign in self.signs.values()):
                pulse.beat()
        notify.tell(notify.STOPPING)
        self._end()

    def _start(self, number: int) -> BaseProcess:
        sign = self.signs.setdefault(number, Sign())
        about = (self.settings, self.listening, number, os.getpid(), sign, self.shares)
        process = FORK.Process(target=_receive, args=about)
        process.start()
        return process

    def _end(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _receive(
    settings: Settings, listening: socket.socket, number: int, parent: int, sign: Sign, shares: Shares
) -> None:
    """The life of one receiver."""
    stop = stop_on_signals()
    end_with_parent()
    if os.getppid() != parent:
        return  # it died before we could ask to be told
    books = bookkeeping.open_books(settings.books_url)
    tls = server_context(settings.listen.tls) if settings.listen.tls.certificate else None
    intake = Intake(books, Spool(settings.node.data_dir))
    pulse.keep(books, "listen", stop)
    gc.freeze()  # pynetdicom collects by hand every 60 turns, and what has been imported never becomes garbage
    receiver, share = str(number), shares.of(number - 1)
    Listener(settings, intake, receiver=receiver, listening=listening, tls=tls, share=share, turned=sign.give).run(stop)
    pulse.Pulse(books, "listen").end()
    bookkeeping.close(books)
