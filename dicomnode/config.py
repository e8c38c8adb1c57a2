"""The settings: one node.toml, read once, into frozen values; an unknown key is refused by name."""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dicomnode import notify
from dicomnode.jobs import Lane
from inference import weights

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
FORBID = ConfigDict(extra="forbid")
ENVIRONMENT = "DICOMNODE_CONFIG"
SECRETS = {"books": "DICOMNODE_BOOKS_URL", "broker": "DICOMNODE_BROKER_URL"}  # what stands in for [section] url
RESERVED = "SELFTEST-"  # AE titles that begin so are those of `dicomnode selftest`
PLACES = (Path("node.toml"), Path("/etc/dicomnode/node.toml"))


class ConfigError(Exception):
    """The settings cannot be used; the message says which key and what to do."""


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters, no backslash, no control characters, not only spaces."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or "\\" in title or not title.isprintable() or not title.isascii():
        raise ValueError(f"{value!r} is not an AE title: 1 to 16 printable ASCII characters, no backslash")
    return title


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _mailbox(value: str) -> str:
    """A plain address: what goes into a header must not begin another one."""
    name, at, domain = value.partition("@")
    if not (name and at and domain) or not value.isprintable() or set(value) & set(' ,;<>"()'):
        raise ValueError(f"{value!r} is not an e-mail address: name@domain, without a name in words")
    return value


def _mailbox_or_none(value: str) -> str:
    return _mailbox(value) if value else value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Network = Annotated[str, AfterValidator(_network)]
Object = Literal["sc", "pm", "ct", "seg", "mosaic", "sr", "sr-comprehensive", "pdf"]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=FORBID)
class Node:
    """Who this node is, where it keeps its bytes, and what its maps may be used for."""

    ae_title: AETitle = "DICOMNODE"
    data_dir: Path = Path("data")
    intended_use: Literal["research", "clinical"] = "research"
    accept_simulated: bool = False
    accept_anonymous: bool = False


@dataclass(frozen=True, config=FORBID)
class Tls:
    """PEM files of the listener: its certificate and key, and who has signed its senders'; all empty is plain DICOM."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""


@dataclass(frozen=True, config=FORBID)
class WebTls:
    """PEM files of the web service; both empty is plain HTTP."""

    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, config=FORBID)
class Listen:
    """Where the C-STORE SCP listens, by how many processes, and when it takes no more."""

    host: str = "0.0.0.0"
    port: Port = 11112
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    data_path: Literal["direct", "stock"] = "direct"
    keep_free_gib: Annotated[float, Field(ge=0)] = 1.0
    largest_instance_mib: Annotated[int, Field(ge=1)] = 4096
    max_associations: Annotated[int, Field(ge=1)] = 64
    max_per_address: Annotated[int, Field(ge=1)] = 32
    connections_per_second: Annotated[float, Field(ge=1)] = 100.0
    tls: Tls = field(default_factory=Tls)


@dataclass(frozen=True, config=FORBID)
class Source:
    """A sender that may associate: its AE title, from these addresses only."""

    ae_title: AETitle
    addresses: Annotated[tuple[Network, ...], Field(min_length=1)]
    lane: Lane = Lane.ROUTINE
    commitment_port: Annotated[int, Field(ge=0, le=65535)] = 0

    def admits(self, calling_ae_title: str, address: str) -> bool:
        """True where the peer bears this AE title and calls from one of these addresses."""
        return calling_ae_title.strip() == self.ae_title and self.lives_at(address)

    def lives_at(self, address: str) -> bool:
        """True for one of these addresses, whoever calls."""
        peer = ipaddress.ip_address(address)
        mapped = getattr(peer, "ipv4_mapped", None)
        networks = [ipaddress.ip_network(a, strict=False) for a in self.addresses]
        return any(p in n for n in networks for p in (peer, mapped) if p)


@dataclass(frozen=True, config=FORBID)
class Completeness:
    """When a series counts as whole (seconds)."""

    quiet_seconds: Seconds = 2.0
    give_up_seconds: Seconds = 60.0


@dataclass(frozen=True, config=FORBID)
class Processing:
    """Which routes are on, and what computes them."""

    routes: tuple[Literal["ncct"], ...] = ("ncct",)
    weights: str = ""
    engine: Literal["torch"] = "torch"
    threads: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=FORBID)
class Destination:
    """A PACS that results are sent to: by DIMSE to an AE title at a host and port, or by STOW-RS."""

    name: str
    ae_title: AETitle = ""
    host: str = ""
    port: Port = 0
    stow_url: Annotated[str, Field(pattern=r"^(https?://[^/]+(/.*)?)?$")] = ""
    objects: Annotated[tuple[Object, ...], Field(min_length=1)] = ("sc", "pm")
    transfer_syntax: Literal["explicit", "rle", "jpeg-ls"] = "explicit"
    character_set: Literal["unicode", "source"] = "unicode"
    capture_modality: Literal["OT", "SC", "CT"] = "OT"
    stand_ins: tuple[Literal["ct", "mosaic"], ...] = ("mosaic",)
    refusal_page: bool = True
    rejection_note: bool = False
    required: bool = True
    confirm: Literal["auto", "commitment", "query", "status"] = "auto"

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of result that are sent there."""
        also = {"page": self.refusal_page, "note": self.rejection_note, "pilo": "sc" in self.objects}
        return frozenset(self.objects).union(kind for kind, wanted in also.items() if wanted)


@dataclass(frozen=True, config=FORBID)
class Url:
    """A database or broker; empty means the embedded default under data_dir."""

    url: str = ""


def _issuer(value: str) -> str:
    url = urlsplit(value)
    if value and not (url.hostname and (url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK))):
        raise ValueError(f"{value!r} is not the https address of an issuer")
    return value


@dataclass(frozen=True, config=FORBID)
class Oidc:
    """Where people log in by the hospital's provider of OpenID Connect; without an issuer they cannot.

    viewer, operator, administrator: values of the claim `role_claim` that make somebody one.
    """

    issuer: Annotated[str, AfterValidator(_issuer)] = ""
    client_id: str = ""
    title: str = "the hospital's account"
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    role_claim: str = "groups"
    viewer: tuple[str, ...] = ()
    operator: tuple[str, ...] = ()
    administrator: tuple[str, ...] = ()
    ca: str = ""


@dataclass(frozen=True, config=FORBID)
class Web:
    """The web service: DICOMweb and the administrator's page. public_url: its address as browsers see it."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8080
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/]+(/.*)?)?$")] = ""
    session_hours: Annotated[float, Field(gt=0, le=24)] = 12.0
    tls: WebTls = field(default_factory=WebTls)
    oidc: Oidc = field(default_factory=Oidc)

    @property
    def is_secret(self) -> bool:
        """True where nobody on the way can read what browsers say."""
        return bool(self.tls.certificate) or self.public_url.startswith("https:")

    @property
    def is_local(self) -> bool:
        """True where only this machine can connect."""
        return self.host in LOOPBACK


@dataclass(frozen=True, config=FORBID)
class Retention:
    """How long files of delivered studies are kept (days; 0 for ever), and the room that is made where it lacks."""

    sources_days: Annotated[float, Field(ge=0)] = 90.0
    results_days: Annotated[float, Field(ge=0)] = 90.0
    quarantine_days: Annotated[float, Field(ge=0)] = 90.0
    keep_free_gib: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True, config=FORBID)
class Alerts:
    """Who is told what goes wrong while nobody looks, and from when on; ca: who has signed their servers' names."""

    email_to: tuple[Mailbox, ...] = ()
    email_from: Annotated[str, AfterValidator(_mailbox_or_none)] = ""
    smtp_host: str = ""
    smtp_port: Port = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str = ""
    webhook_url: Annotated[str, Field(pattern=r"^(https?://[^/@\s]+(/\S*)?)?$")] = ""
    ca: str = ""
    waiting_minutes: Annotated[float, Field(gt=0)] = 15.0
    disk_hours: Annotated[float, Field(ge=0)] = 24.0
    certificate_days: Annotated[float, Field(ge=0)] = 30.0
    clock_seconds: Annotated[float, Field(gt=0)] = 5.0
    away_minutes: Annotated[float, Field(ge=0)] = 10.0
    apart_minutes: Annotated[float, Field(ge=0)] = 30.0
    remind_hours: Annotated[float, Field(gt=0)] = 24.0


@dataclass(frozen=True, config=FORBID)
class Settings:
    """Everything node.toml says."""

    node: Node = field(default_factory=Node)
    listen: Listen = field(default_factory=Listen)
    source: tuple[Source, ...] = ()
    completeness: Completeness = field(default_factory=Completeness)
    processing: Processing = field(default_factory=Processing)
    destination: tuple[Destination, ...] = ()
    books: Url = field(default_factory=Url)
    broker: Url = field(default_factory=Url)
    web: Web = field(default_factory=Web)
    retention: Retention = field(default_factory=Retention)
    alerts: Alerts = field(default_factory=Alerts)

    @property
    def books_url(self) -> str:
        """SQLAlchemy URL of the books."""
        return self.books.url or f"sqlite:///{self.node.data_dir / 'books.db'}"

    @property
    def weights_folder(self) -> Path:
        """Where the weights lie: [processing] weights is a folder, the name of shipped weights, or empty."""
        given = self.processing.weights
        return Path(given) if "/" in given else weights.shipped(given or weights.DEFAULT)

    @property
    def digest(self) -> str:
        """Digest of what shapes a result besides its inputs and weights (design contract 3)."""
        return sha256(repr(self.processing).encode()).hexdigest()

    @property
    def lane_of_unknown(self) -> Lane:
        """The lane of what a crash robbed of its sender's name: rather too urgent than too late."""
        return Lane.STROKE if any(source.lane is Lane.STROKE for source in self.source) else Lane.ROUTINE

    def is_known(self, address: str) -> bool:
        """True where somebody may send from this address; a self-test comes from this machine."""
        return address.removeprefix("::ffff:") in LOOPBACK or any(source.lives_at(address) for source in self.source)

    def source_of(self, calling_ae_title: str, address: str) -> Source | None:
        """The [[source]] entry that admits this peer, if any."""
        return next((s for s in self.source if s.admits(calling_ae_title, address)), None)

    def destination_named(self, name: str) -> Destination | None:
        """The [[destination]] of that name, if it is still configured."""
        return next((d for d in self.destination if d.name == name), None)


def find(given: Path | None = None) -> Path:
    """The node.toml to use: given, else the environment, else the working directory, else /etc."""
    named = given or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    for path in (named,) if named else PLACES:
        if path.is_file():
            return path.resolve()
    where = str(named) if named else " or ".join(map(str, PLACES))
    raise ConfigError(f"no settings at {where}; write them with `dicomnode init`, or name them with --config FILE")


def load(path: Path) -> Settings:
    """Read and check node.toml; a relative data_dir is relative to the file.

    URLs that hold a password may come from the environment or a credential instead, as SECRETS names them.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for section, name in SECRETS.items():
        if (url := notify.secret(name)) and isinstance(raw.get(section, {}), dict):
            raw[section] = {**raw.get(section, {}), "url": url}
    return parse(raw, str(path), path.parent)


def parse(raw: Mapping[str, Any], name: str = "node.toml", folder: Path = Path()) -> Settings:
    """Check settings already read; data_dir, a folder of weights and TLS files are taken relative to `folder`."""
    sections = ("node", "processing", "listen", "web", "alerts")
    node, processing, listen, web, alerts = (dict(raw.get(name, {})) for name in sections)
    node["data_dir"] = folder / node.get("data_dir", "data")
    if "/" in str(processing.get("weights", "")):
        processing["weights"] = str(folder / processing["weights"])
    for keys in (listen, web):
        if isinstance(keys.get("tls"), Mapping):
            keys["tls"] = {k: str(folder / v) if v and isinstance(v, str) else v for k, v in keys["tls"].items()}
    if isinstance(web.get("oidc"), Mapping):
        web["oidc"] = dict(web["oidc"])
    for keys in (alerts, web.get("oidc", {})):
        if isinstance(keys, dict) and keys.get("ca") and isinstance(keys["ca"], str):
            keys["ca"] = str(folder / keys["ca"])
    changed = {"node": node, "processing": processing, "listen": listen, "web": web, "alerts": alerts}
    try:
        settings = TypeAdapter(Settings).validate_python({**raw, **changed})
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(name, problem) for problem in error.errors())) from error
    for section, tls, plain in (("listen", settings.listen.tls, "DICOM"), ("web", settings.web.tls, "HTTP")):
        if bool(tls.certificate) != bool(tls.key):
            raise ConfigError(f"{name}: [{section}] tls needs both certificate and key, or neither for plain {plain}")
    if not (settings.web.is_local or settings.web.is_secret):
        raise ConfigError(
            f"{name}: [web] host {settings.web.host} would send passwords and patients in clear text; set tls, or "
            "public_url to the https address of the proxy in front, or host to 127.0.0.1"
        )
    _check_oidc(name, settings.web)
    for source in settings.source:
        if source.ae_title.startswith(RESERVED):
            raise ConfigError(
                f"{name}: [[source]] ae_title {source.ae_title!r}: what begins so is `dicomnode selftest`"
            )
    _check_alerts(name, settings.alerts)
    _refuse_twins(name, "destination", [d.name for d in settings.destination])
    for number, destination in enumerate(settings.destination):
        lacking = [key for key in ("ae_title", "host", "port") if not getattr(destination, key)]
        if lacking and not destination.stow_url:
            raise ConfigError(f"{name}: [destination.{number}] needs the key {lacking[0]!r}, or stow_url")
        if "seg" not in destination.objects and {"sr", "sr-comprehensive"} & set(destination.objects):
            raise ConfigError(f'{name}: [destination.{number}] objects has a report of regions without them; add "seg"')
    return settings


def _check_oidc(name: str, web: Web) -> None:
    oidc = web.oidc
    if not oidc.issuer:
        return
    if not oidc.client_id:
        raise ConfigError(f"{name}: [web.oidc] needs the key 'client_id' too")
    if not web.public_url:
        raise ConfigError(f"{name}: [web.oidc] needs [web] public_url, where the provider sends people back to")
    if "openid" not in oidc.scopes:
        raise ConfigError(f'{name}: [web.oidc] scopes lacks "openid"')
    if not (oidc.viewer or oidc.operator or oidc.administrator):
        raise ConfigError(f"{name}: [web.oidc] lets nobody in; set viewer, operator or administrator to groups")


def _check_alerts(name: str, alerts: Alerts) -> None:
    for key in ("email_from", "smtp_host"):
        if alerts.email_to and not getattr(alerts, key):
            raise ConfigError(f"{name}: [alerts] email_to needs the key {key!r} too")
    if alerts.smtp_user and alerts.smtp_security == "none":
        raise ConfigError(
            f'{name}: [alerts] smtp_user would send its password in clear text; set smtp_security to "tls"'
        )


def _refuse_twins(name: str, section: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for each in names:
        if each in seen:
            raise ConfigError(f"{name}: two [[{section}]] entries are named {each!r}; give each its own name")
        seen.add(each)


def _sentence(name: str, problem: Any) -> str:
    *sections, key = [str(part) for part in problem["loc"]]
    place = f"[{'.'.join(sections)}] " if sections else ""
    if problem["type"] == "unexpected_keyword_argument":
        known = _known_keys([part for part in sections if not part.isdigit()])
        guess = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {guess[0]!r}?" if guess else f"known keys are {', '.join(sorted(known))}"
        return f"{name}: {place}has no key {key!r}; {hint}"
    if problem["type"] == "missing":
        return f"{name}: {place}needs the key {key!r}"
    return f"{name}: {place}{key} = {problem['input']!r}: {problem['msg']}"


def _known_keys(sections: list[str]) -> list[str]:
    here: Any = Settings
    for section in sections:
        kind = next((f.type for f in fields(here) if f.name == section), None)
        here = next((t for t in (kind, *get_args(kind)) if is_dataclass(t)), Settings)
    return [f.name for f in fields(here)]
