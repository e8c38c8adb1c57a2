"""A mail server and a web server on the loopback that remember what they were told, and ones that hang."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_string, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any


@dataclass
class Mailbox:
    """A mail server (RFC 5321) that offers STARTTLS where it has a certificate. refusing: how many it turns away."""

    certificate: tuple[str, str] | None = None
    mails: list[EmailMessage] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    refusing: int = 0
    port: int = 0

    @contextmanager
    def running(self) -> Iterator["Mailbox"]:
        box = self

        class Talk(StreamRequestHandler):
            def handle(self) -> None:
                self.say("220 mail.test")
                while line := self.rfile.readline().decode().strip():
                    box.heard.append(line)
                    verb = line.split()[0].upper()
                    if verb == "EHLO":
                        plain = box.certificate and not isinstance(self.request, ssl.SSLSocket)
                        self.say("250-mail.test", "250-AUTH PLAIN", "250 STARTTLS" if plain else "250 8BITMIME")
                    elif verb == "STARTTLS":
                        self.say("220 go ahead")
                        self.secure()
                    elif verb == "MAIL" and box.refusing:
                        box.refusing -= 1
                        self.say("451 later")
                    elif verb == "DATA":
                        self.say("354 go ahead")
                        self.data()
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("235 ok" if verb == "AUTH" else "250 ok")

            def say(self, *lines: str) -> None:
                self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

            def secure(self) -> None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*(box.certificate or ()))
                self.request = context.wrap_socket(self.request, server_side=True)
                self.setup()

            def data(self) -> None:
                lines = []
                while (line := self.rfile.readline().decode()) != ".\r\n":
                    lines.append(line.removeprefix("."))
                box.mails.append(message_from_string("".join(lines), policy=policy.default))
                self.say("250 ok")

            def finish(self) -> None:
                super().finish()
                self.request.close()

        with serving(Quietly(("127.0.0.1", 0), Talk)) as self.port:
            yield self


@dataclass
class Hook:
    """A webhook. answers: the status of each request in turn, then 204."""

    answers: list[int] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["Hook"]:
        hook = self

        class Take(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.headers.append(dict(self.headers))
                hook.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with serving(ThreadingHTTPServer(("127.0.0.1", 0), Take)) as port:
            self.url = f"http://127.0.0.1:{port}/hook?key=1"
            yield self


class Quietly(ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is what some tests want."""


@contextmanager
def serving(server: ThreadingTCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def hanging() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]
