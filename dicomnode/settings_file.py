"""The node.toml that `dicomnode init` writes: complete, commented, and working as it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps

HEAD = """\
# Settings of the perfusion node. Read once at start; restart the services after a change.
# Every key but those of [[source]] and [[destination]] may be left out; the value shown is then its default.

[node]
# Our AE title: what senders call and what the PACS must know. 1 to 16 characters.
ae_title = "{ae_title}"
# Where received instances, results and the embedded books are kept; relative to this file. Needs room for a few days of
# head CTs and their maps (0.26 GB for a study of 28 slices).
data_dir = {data_dir}
# "research" runs the shipped weights, which say in every object what they were trained on. "clinical" refuses all
# weights that this site has not accepted.
intended_use = "research"
# true: virtual patients (Synthetic Data YES) are processed too, and their results say SIMULATED PATIENT.
accept_simulated = {accept_simulated}
# true: images without a Patient ID are processed too. By default they are refused, because nobody could tell whose maps
# they were.
accept_anonymous = false

[listen]
# Address and port of the C-STORE SCP. 0.0.0.0 is every interface; 11112 is the DICOM port that needs no privileges.
host = "0.0.0.0"
port = {port}
# Receiver processes that share the port. Two serve several scanners at once on two cores; more only where many send.
processes = 2
# "direct": our own path from the network to the file. "stock": pynetdicom's, several times slower, should the first
# ever have to be ruled out as the cause of a trouble.
data_path = "direct"
# GiB that stay free for results: below it every instance is answered 0xA700 (out of resources) before it is read, and
# the sender keeps it. A quarter of that is held back in data_dir/reserve, and given up when the disk is all but full.
keep_free_gib = 1.0
# MiB of the largest instance that is taken; what is larger is answered 0xA700.
largest_instance_mib = 4096
# Open associations of one receiver, and of one address with it: more are rejected for the moment; senders try again.
max_associations = 64
max_per_address = 32
# New connections of one address in a second, of one receiver; twice as many may come at once, more are closed unheard.
# Addresses of no [[source]] get ten a second and four at a time, which is enough to be told that they are not listed.
connections_per_second = 100.0
# TLS in place of plain DICOM (PS3.15, BCP 195 profile: 1.2 at least; DICOM's port for it is 2762). PEM files, relative
# to this one: certificate (with its chain), key (unencrypted, readable by this account only) and, where senders must
# show certificates of their own, client_ca, which has signed them. `dicomnode doctor` warns 30 days before the end.
tls = {{ certificate = "", key = "", client_ca = "" }}

# Who may send: AE title and address together; everyone else is rejected at the door and `dicomnode status` says so.
# addresses: IP addresses or networks (192.0.2.0/24). lane: "stroke" is never computed behind "routine".
# commitment_port: where the sender takes Storage Commitment reports, on the address it calls from. 0: reports go out
# only over the association that asked, while it is open.
"""

SOURCE = """\
[[source]]
ae_title = "{ae_title}"
addresses = ["{host}"]
lane = "stroke"
commitment_port = 0
"""

MIDDLE = """\
[completeness]
# Seconds without a new instance after the last association ended, before a gapless series counts as whole. Short,
# because the geometry proves the rest; longer only if a scanner splits one series over several associations.
quiet_seconds = 2.0
# Seconds after which a series that is still not gapless is judged as it stands.
give_up_seconds = 60.0

[processing]
# Routes that are switched on.
routes = ["ncct"]
# Name of shipped weights, or a folder with model.safetensors and manifest.json. Empty: the shipped default.
weights = ""
# What computes: "torch".
engine = "torch"
# Threads for the computation; 0 is half the cores, which leaves the others to receiving and sending.
threads = 0

# Where results go. objects: "sc" colour secondary captures, one for each slice and map; "pm" parametric maps. On
# request: "ct" 16 bit images in physical units, filed as derived CT; "seg" segmentations of low flow and late tissue;
# "mosaic" one page with all maps and volumes; "pdf" that page as a document; "sr" a structured report of the volumes
# (TID 1500, Comprehensive 3D SR) that refers to "seg", "sr-comprehensive" the same for peers that know no newer class.
# Regions and volumes are estimates, not for treatment selection.
# stow_url: the DICOMweb address (https://pacs/dicom-web) where STOW-RS is wanted in place of C-STORE; ae_title, host
# and port may then be left out. Its Authorization header is the environment variable or systemd credential
# DICOMNODE_AUTHORIZATION_<NAME>.
# transfer_syntax: "explicit" sends uncompressed; "rle" and "jpeg-ls" compress captures and derived CT without loss, and
# go uncompressed where the PACS does not take them. Implicit VR Little Endian is always offered.
# character_set: "unicode" (ISO_IR 192), or "source" for a PACS that knows only the set of its own scanners.
# capture_modality: what captures say they are: "OT", or "SC" or "CT" where a viewer hides OT.
# stand_ins: what may take the place of an object that the PACS refuses, besides captures: "mosaic" for "seg", "sr" and
# "pdf"; "ct" for "pm", if derived CT images in the study are no trouble for hanging protocols and billing.
# refusal_page: a study whose head CT could not be used gets one page that says why; silence is easily read as normal.
# rejection_note: a key object that takes back what a new revision replaces (IHE IOCM); true only where the PACS hides
# what such notes name, because others show them as key images.
# required: a job is DONE only when every required destination holds its results.
# confirm: how we know that it does. "commitment" is DICOM Storage Commitment (its report may come to our listener, so
# the PACS must know our address and port); "query" is C-FIND; "status" trusts the C-STORE response. "auto" takes the
# best that the destination offers.
"""

DESTINATION = """\
[[destination]]
name = "{name}"
ae_title = "{ae_title}"
host = "{host}"
port = {port}
stow_url = ""
objects = ["sc", "pm"]
transfer_syntax = "explicit"
character_set = "unicode"
capture_modality = "OT"
stand_ins = ["mosaic"]
refusal_page = true
rejection_note = false
required = true
confirm = "auto"
"""

TAIL = """\
[books]
# SQLAlchemy URL of the database. Empty: SQLite in data_dir, no server needed. One with a password belongs into the
# environment variable or systemd credential DICOMNODE_BOOKS_URL, which goes before this key.
url = ""

[broker]
# Celery broker URL. Empty: a folder in data_dir, no server needed. DICOMNODE_BROKER_URL goes before it, as above.
url = ""

[web]
# true: `dicomnode up` also runs the web service: DICOMweb and the administrator's page. Nobody gets in without an
# account; `dicomnode account add NAME --role administrator` makes the first.
enabled = false
# Address and port. 127.0.0.1 serves this machine only; any other needs tls, or a proxy in front that speaks https.
host = "127.0.0.1"
port = 8080
# The address as browsers see it (https://perfusion.hospital.example), where a proxy stands in front; else empty.
public_url = ""
# Hours after which everybody logs in again; without use it is half an hour.
session_hours = 12.0
# PEM files, relative to this one: certificate (with its chain) and key. Both empty is plain HTTP.
tls = { certificate = "", key = "" }

[web.oidc]
# People may also log in by the hospital's provider of OpenID Connect (Entra ID, Keycloak, ADFS). issuer: its address,
# just as it writes it itself; empty: they may not. client_id: what it calls us. It must know the address
# PUBLIC_URL/login/oidc/return to come back to, so that public_url has to be set, too. The client secret is the
# environment variable or systemd credential DICOMNODE_OIDC_SECRET. title: what the button says after "Log in with".
issuer = ""
client_id = ""
title = "the hospital's account"
scopes = ["openid", "profile"]
# Claims of the ID token: what the account is called here, and by which groups (or one) somebody has a role. Dots lead
# into a claim: "realm_access.roles". Who has none of the groups does not get in; of several roles the highest counts.
name_claim = "preferred_username"
role_claim = "groups"
viewer = []
operator = []
administrator = []
# PEM file, relative to this one, of who has signed the provider's certificate; empty: whom the system trusts.
ca = ""

[retention]
# Days after which files of a study leave the disk: what was received, what was made of it, and what was set aside
# unread. 0 keeps them for ever. What is undelivered, in use, still arriving or asked for by a request for storage
# commitment stays, however old; the books keep the story, and `dicomnode explain` says when the files went. The node is
# no archive: three months leave time for questions, and a disk that is full receives no strokes.
sources_days = 90.0
results_days = 90.0
quarantine_days = 90.0
# GiB: where less is free, the oldest delivered studies go before their time, none younger than a day. 0, the default,
# removes nothing for want of room, because a scanner may have been told by storage commitment that we keep its images.
keep_free_gib = 0.0

[alerts]
# Who is told by e-mail that jobs have failed, studies wait, the disk fills, a certificate ends, the clock drifts, a
# destination is away or a service has fallen silent: job ids and reason codes, never a patient. Nobody by default.
email_to = []
email_from = ""
# The mail server. smtp_security: "starttls" (port 587), "tls" (465), "none" for a relay within the hospital (25). The
# password of smtp_user is the environment variable or systemd credential DICOMNODE_SMTP_PASSWORD.
smtp_host = ""
smtp_port = 587
smtp_security = "starttls"
smtp_user = ""
# Where the same goes as a POST of JSON; any answer from 200 to 299 takes it. An Authorization header for it is the
# environment variable or systemd credential DICOMNODE_WEBHOOK_AUTHORIZATION.
webhook_url = ""
# PEM file, relative to this one, of who has signed the certificates of these servers; empty: whom the system trusts.
ca = ""
# From when on it is told: minutes that the oldest study of a lane is open, hours until the disk is full, days until a
# certificate ends, seconds that our clock differs from the PostgreSQL server's, minutes that a destination is away.
waiting_minutes = 15.0
disk_hours = 24.0
certificate_days = 30.0
clock_seconds = 5.0
away_minutes = 10.0
# Minutes between two messages about one kind of trouble; what comes meanwhile is told together. Hours after which what
# has not ended is told again.
apart_minutes = 30.0
remind_hours = 24.0
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as written on the command line: AET@HOST or AET@HOST:PORT."""

    ae_title: str
    host: str
    port: int | None


def peer(text: str) -> Peer:
    """Read AET@HOST or AET@HOST:PORT; an IPv6 address stands in brackets. Raises ValueError."""
    ae_title, at, address = text.partition("@")
    host, _, port = address.rpartition(":") if address.rpartition(":")[2].isdecimal() else (address, "", "")
    host = host.removeprefix("[").removesuffix("]")
    if not (ae_title and at and host):
        raise ValueError(f"{text!r} is not AET@HOST or AET@HOST:PORT")
    return Peer(ae_title, host, int(port) if port else None)


def render(
    sources: Sequence[Peer],
    destinations: Sequence[Peer],
    *,
    ae_title: str = "DICOMNODE",
    port: int = 11112,
    simulated: bool = False,
    data_dir: str = "data",
) -> str:
    """The text of node.toml for these peers."""
    flags = {"accept_simulated": dumps(simulated), "data_dir": dumps(data_dir)}
    blocks = [HEAD.format(ae_title=ae_title, port=port, **flags)]
    blocks += [SOURCE.format(ae_title=s.ae_title, host=s.host) for s in sources]
    blocks.append(MIDDLE)
    blocks += [
        DESTINATION.format(name=name, ae_title=d.ae_title, host=d.host, port=d.port)
        for name, d in zip(_names(destinations), destinations, strict=True)
    ]
    blocks.append(TAIL)
    return "\n".join(blocks)


def _names(destinations: Sequence[Peer]) -> list[str]:
    """The AE title in small letters, numbered where two destinations share it."""
    plain = [d.ae_title.strip().lower() for d in destinations]
    return [name if plain.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(plain)]
