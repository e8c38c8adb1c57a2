"""The DICOM conformance statement, from the tables of the code: what stands there is what runs (PS3.2)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from textwrap import wrap
from typing import Any

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicomnode import (
    MANUFACTURER,
    MODEL_NAME,
    __version__,
    config,
    confirmation,
    delivery,
    eligibility,
    ladder,
    pages,
    selection,
)
from dicomnode.retries import FIRST, GIVE_UP_AFTER, LONGEST
from dicomnode.scp.direct import MAXIMUM_PDU
from dicomnode.scp.listener import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicomnode.sender import peers
from dicomnode.web import qido
from dicomnode.writer import codes, common
from inference.maps import KINDS

WIDTH = 118
CAPTURE = SecondaryCaptureImageStorage
GENERAL = "Patient, General Study, Patient Study, {series}, {equipment}, SOP Common"
IMAGE = GENERAL.format(series="General Series", equipment="General Equipment")
ENHANCED = GENERAL.format(series="General Series", equipment="Enhanced General Equipment")
REPORT = GENERAL.format(series="SR Document Series", equipment="General Equipment")
REPORT += ", SR Document General, SR Document Content (TID 1500)"

# kind, SOP class, Modality, lowest series number, one for each, modules
OBJECTS: tuple[tuple[str, UID, str, int, str, str], ...] = (
    ("sc", CAPTURE, "OT", 9001, "slice and map", f"{IMAGE}, General Image, Image Pixel, SC Equipment, SC Image"),
    ("pm", ParametricMapStorage, "OT", 9101, "map", f"{ENHANCED}, Frame of Reference, Image Pixel (float), "
        "Multi-frame Functional Groups, Multi-frame Dimension, Parametric Map Series and Image, Acquisition Context, "
        "Common Instance Reference"),
    ("ct", CTImageStorage, "CT", 9201, "slice and map", f"{IMAGE}, Frame of Reference, General Image, Image Plane, "
        "Image Pixel, CT Image, VOI LUT, Real World Value Mapping"),
    ("seg", SegmentationStorage, "SEG", 9301, "set of regions", f"{ENHANCED}, Frame of Reference, Image Pixel, "
        "Segmentation Series and Image (BINARY), Multi-frame Functional Groups, Multi-frame Dimension, "
        "Common Instance Reference"),
    ("mosaic", CAPTURE, "OT", 9401, "study", f"{IMAGE}, General Image, Image Pixel, SC Equipment, SC Image"),
    ("sr", Comprehensive3DSRStorage, "SR", 9501, "study", REPORT),
    ("sr-comprehensive", ComprehensiveSRStorage, "SR", 9502, "study", REPORT),
    ("pdf", EncapsulatedPDFStorage, "DOC", 9601, "study", GENERAL.format(
        series="Encapsulated Document Series", equipment="General Equipment") + ", SC Equipment, "
        "Encapsulated Document"),
    ("note", KeyObjectSelectionDocumentStorage, "KO", 9701, "study", GENERAL.format(
        series="Key Object Document Series", equipment="General Equipment") + ", Key Object Document, "
        "SR Document Content (TID 2010)"),
    ("page", CAPTURE, "OT", 9901, "study without maps", f"{IMAGE}, General Image, Image Pixel, SC Equipment, SC Image"),
)  # fmt: skip

Row = Sequence[object]


def statement() -> str:
    """The statement as Markdown."""
    return "\n".join(_wrapped(_lines())).rstrip() + "\n"


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
    """Sentences that follow one another become paragraphs; headings, tables, items and gaps stay as they are."""
    for prose, run in groupby(lines, lambda line: bool(line) and line[0] not in "#|-"):
        text = list(run)
        yield from wrap(" ".join(text), WIDTH, break_long_words=False) if prose else text


def _lines() -> Iterator[str]:
    yield f"# DICOM conformance statement: {MODEL_NAME}"
    yield ""
    yield f"Made by `dicomnode conformance` of version {__version__}. {MANUFACTURER}."
    for number, (title, section) in enumerate(SECTIONS, start=1):
        yield ""
        yield f"## {number} {title}"
        yield ""
        yield from section()


def _table(head: Row, rows: Iterable[Row]) -> Iterator[str]:
    yield _row(head)
    yield "|" + "---|" * len(head)
    for row in rows:
        yield _row(row)


def _row(cells: Row) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _overview() -> Iterator[str]:
    yield "The node receives head CT, makes synthetic perfusion maps of it and stores them in the same"
    yield "study. All it makes"
    yield f'says (0008,001C) Synthetic Data YES and "{common.DISCLAIMER}". {common.NOT_AN_EXCLUSION}'
    yield ""
    yield from _table(
        ("Service", "SCU", "SCP"),
        (
            ("Verification", "yes (`dicomnode doctor`)", "yes"),
            ("Storage", "the objects of section 6", "all classes of section 9"),
            ("Storage Commitment Push Model", "for what was sent", "for what was received"),
            ("Study Root Query/Retrieve, FIND", "at IMAGE level, to confirm what was sent", "no"),
            ("DICOMweb STOW-RS, QIDO-RS", "user agent (`stow_url` of a destination)", "origin server (`[web]`)"),
            ("DICOMweb WADO-RS", "no", "origin server (`[web]`)"),
            ("Modality worklist, MPPS, UPS, Query/Retrieve MOVE and GET, Print, media", "no", "no"),
        ),
    )


def _implementation() -> Iterator[str]:
    yield "One application entity. Three activities share it through a database and a folder, not through"
    yield "the network:"
    yield ""
    yield "- **Listener** (Storage, Verification and Storage Commitment SCP): keeps instances, then answers."
    yield "- **Worker**: judges a series once it is whole, computes the maps, writes the files."
    yield "- **Sender** (Storage, Storage Commitment and FIND SCU): sends the files and has them confirmed."
    yield ""
    yield "A series is whole when its slices lie without a gap and"
    yield f"{_default('completeness', 'quiet_seconds'):g} s have passed since the last association that"
    yield "brought one ended;"
    yield f"else {_default('completeness', 'give_up_seconds'):g} s after the last slice it is judged as it stands."


def _accepting() -> Iterator[str]:
    yield from _table(
        ("Item", "Value"),
        (
            (
                "AE title",
                f"`[node] ae_title`, default {_default('node', 'ae_title')}; another called title is rejected",
            ),
            ("Port", f"`[listen] port`, default {_default('listen', 'port')}; TCP/IP, IPv4 and IPv6"),
            (
                "Calling AE titles",
                "those of `[[source]]` from their addresses; others: rejected-permanent, reason 3",
            ),
            ("Maximum PDU", f"{MAXIMUM_PDU} bytes"),
            (
                "Associations at a time",
                f"{_default('listen', 'max_associations')} for each of `[listen] processes`, of one address "
                f"{_default('listen', 'max_per_address')}",
            ),
            ("Asynchronous operations, extended negotiation", "none"),
            ("Implementation Class UID in files written", common.IMPLEMENTATION_CLASS_UID),
            ("Transfer syntaxes, first to last", ", ".join(UID(syntax).name for syntax in TRANSFER_SYNTAXES)),
        ),
    )
    yield ""
    yield "Answers to C-STORE:"
    yield ""
    yield from _table(
        ("Status", "Meaning"),
        (
            ("0x0000", "the instance is on disk and in the books; the same bytes again are the same instance"),
            ("0xA700", "disk or database cannot take it, or it is too large; nothing is kept, send it again"),
            ("0xC000", "it is no readable DICOM data set; its bytes are kept aside, the reason in the books"),
            ("0x0110", "our own mistake; send it again"),
        ),
    )
    yield ""
    yield "Instances are kept byte for byte; none is coerced. Several instances of one SOP Instance UID"
    yield "with other bytes are"
    yield "kept apart, and the newest counts."


def _sending() -> Iterator[str]:
    yield "One presentation context for each SOP class and transfer syntax: the file's own, and Implicit"
    yield "VR Little Endian"
    yield "for all that is not compressed. Associations are opened when results are finished, and again as below."
    yield ""
    yield from _table(
        ("Status", "What becomes of the file"),
        ((_status(mask, value), f"{state}: {words}") for mask, value, state, words in delivery.MEANING),
    )
    yield ""
    yield f"PENDING is tried again after about {FIRST:g} s, then ever later up to {1.5 * LONGEST:g} s,"
    yield f"{GIVE_UP_AFTER} times."
    yield f"Time limits: {peers.CONNECT:g} s to connect, {peers.NEGOTIATE:g} s to negotiate,"
    yield f"{peers.REPLY:g} s for an answer."
    yield ""
    yield "What is REFUSED falls down a ladder, and each step is recorded:"
    yield ""
    yield from _table(
        ("Refused", "Stands in, the first that the destination may get"),
        ((f"`{kind}`", ", ".join(f"`{step}`" for step in below)) for kind, below in ladder.LADDER.items()),
    )
    yield ""
    yield "`sc` has nothing below it: a destination that refuses it has failed the job."
    yield ""
    yield "A file counts as delivered once it is confirmed (`confirm`): by Storage Commitment where that"
    yield "is offered (the"
    yield "report may come over the same association, or to our listener, for up to"
    yield f"{confirmation.GIVE_UP.days} day), else"
    yield "by C-FIND or QIDO-RS, else by the status of its storage."


def _status(mask: int, value: int) -> str:
    text = f"{value:04X}"
    wild = sum((mask >> shift) & 0xF == 0 for shift in (0, 4, 8, 12))
    return "any other" if wild == 4 else "0x" + text[: 4 - wild] + "x" * wild


def _web() -> Iterator[str]:
    yield 'As a user agent: STOW-RS (PS3.18 10.5): `multipart/related; type="application/dicom"`, the'
    yield "statuses of each"
    yield "instance read from the `application/dicom+json` answer to 200, 202 and 409. QIDO-RS (10.6)"
    yield "confirms by instance."
    yield "The `Authorization` header comes from the environment or a systemd credential. UPS-RS is not supported."
    yield ""
    yield "As an origin server, where `[web]` is switched on, under `/dicom-web`; each request needs a token"
    yield "(Bearer) or a password (Basic), and TLS unless it comes from the same machine:"
    yield ""
    yield from _table(
        ("Resource", "Methods", "What is supported"),
        (
            (
                "`studies`, `studies/{study}`",
                "POST (STOW-RS)",
                '`multipart/related; type="application/dicom"`; an account of role sender that is a `[[source]]`; '
                "200, 202 or 409, with a reason for each instance; 503 where the disk is full",
            ),
            (
                "`studies`, `.../series`, `.../instances` of a study or series",
                "GET (QIDO-RS)",
                "`application/dicom+json`; " + ", ".join(sorted(qido.MATCHED)) + "; Modality and UIDs below; `limit`, "
                "`offset`, `includefield`; what is not matched is said in a Warning",
            ),
            (
                "study, series, instance",
                "GET (WADO-RS)",
                "files in the transfer syntax in which they lie here; others are refused (406)",
            ),
            ("`metadata`, `bulkdata/{tag}`", "GET (WADO-RS)", "`application/dicom+json`; `application/octet-stream`"),
            ("`frames/{list}`", "GET (WADO-RS)", "`application/octet-stream`, never compressed"),
            ("`rendered`, `frames/{n}/rendered`", "GET (WADO-RS)", "`image/png`, `image/jpeg`; `window`"),
        ),
    )
    yield ""
    yield "Given out are the results of this node; what it has received, to operators and administrators only."


def _created() -> Iterator[str]:
    yield "All lie in the study of their source, in series of their own, Explicit VR Little Endian."
    yield ""
    yield from _table(
        ("Name in `objects`", "SOP class", "Modality", "Series from", "One for each", "Modules"),
        ((f"`{kind}`", UID(uid).name, *others) for kind, uid, *others in OBJECTS),
    )
    yield ""
    yield "`page` and `note` are switched by `refusal_page` and `rejection_note` of a destination."
    yield ""
    yield "Values and where they come from:"
    yield ""
    yield from _table(
        ("Attributes", "Value from"),
        (
            (", ".join(common.TYPE_2), "the source; empty where it has none"),
            (", ".join(common.COPIED), "the source, where it has them; never private groups"),
            (
                "SOP, series and frame UIDs",
                "`2.25.` and a UUID (version 5) of the job's inputs: equal inputs, equal UIDs",
            ),
            ("Frame of reference, positions, orientation, spacing", "the source, unchanged"),
            (
                "Manufacturer, model, serial number, software versions",
                "the node; the scanner is in Contributing Equipment",
            ),
            ("Contributing Equipment", f"the scanner, and the node as ({codes.SYNTHESIZING_EQUIPMENT.value}, DCM)"),
            ("Specific Character Set", f"{common.UNICODE}, or as the source where that states none or it is asked for"),
            ("Lossy Image Compression", "01 where the source was lossy, else 00"),
        ),
    )
    yield ""
    yield "`sc` adds Frame of Reference, Image Position, Orientation, Pixel Spacing and Slice Thickness"
    yield "to its IOD: a Standard"
    yield "Extended SOP class. No private attributes, no private transfer syntaxes, no private SOP classes."


def _received() -> Iterator[str]:
    yield f"Used for the maps: {', '.join(sorted(UID(uid).name for uid in eligibility.CT))}."
    yield "A series is refused, with its code in the books, for these reasons:"
    yield ""
    told = sorted(pages.BY_HEADER)
    at_once = list(dict.fromkeys(code for code, _ in eligibility.RULES))
    yield f"- by its headers: {', '.join(at_once)};"
    yield "- once it is whole: perfusion-series, too-few-slices, gap, patient-conflict;"
    yield "- by its images: mixed-geometry, not-head, partial-brain, phantom, wrong-modality, unsupported-class."
    yield ""
    yield "Of several series that could be used the best is, by the first of these on which they differ: a kernel"
    yield "known to be soft, fewer gaps, the whole head, a thickness of"
    yield f"{selection.THICK[0]:g} to {selection.THICK[1]:g} mm, the latest acquisition. A better one that comes later"
    yield "makes the next revision. Nothing is made or sent while the instances of a study name more than one patient."
    yield "[Input cases](input-cases.md) tells what becomes of each kind of series."
    yield ""
    yield f'A page "No synthetic perfusion" is made for {", ".join(told)}, where no other series of the'
    yield "study was used; for contrast where the image shows what the headers do not say."
    yield "What the node has made itself is never computed from again."


def _terminology() -> Iterator[str]:
    yield from _table(
        ("Map", "Quantity (DCM)", "Unit (UCUM)", "Range of display"),
        (
            (kind.name, f"{kind.quantity[0]} {kind.quantity[1]}", kind.ucum[0], f"0 to {kind.ceiling:g} {kind.unit}")
            for kind in KINDS.values()
        ),
    )
    yield ""
    yield f"Weights of relative units have the relative codes and the unit `{codes.ARBITRARY_UNIT}`."
    yield "Private codes stand in the"
    yield f"scheme {codes.OWN_SCHEME}, which each object identifies. Templates: TID 1500 (reports), TID 2010 (notes)."
    yield "Colours are sRGB with an ICC profile; each map has one fixed scale of colours."
    yield ""
    yield "Character sets: read are all that pydicom knows; written is Unicode, or that of the source"
    yield "(`character_set`)."
    yield ""
    yield "Security: AE titles and addresses are checked; listener and web service offer TLS. People log in to the"
    yield "pages by password or by OpenID Connect (`[web.oidc]`), whose tokens DICOMweb does not take. Logs"
    yield "hold no patient data. Audit messages have the form of PS3.15 A.5 and stand in a chain of hashes; they name"
    yield "studies by UID, without the Patient participant that A.5.3 asks for, and are not forwarded by syslog."


def _classes() -> Iterator[str]:
    yield "Storage classes that are accepted and kept:"
    yield ""
    yield from _table(("SOP class", "UID"), sorted((UID(uid).name, uid) for uid in STORAGE_CLASSES))


def _settings() -> Iterator[str]:
    yield "Of each destination, with its default:"
    yield ""
    bare = config.Destination(name="")
    keys = [field.name for field in fields(bare) if field.name not in ("name", "ae_title", "host", "port")]
    yield from _table(("Key", "Default"), ((f"`{key}`", _written(getattr(bare, key))) for key in keys))


def _ihe() -> Iterator[str]:
    yield "IHE integration statement. Only what the tests of this repository exercise is claimed."
    yield ""
    yield from _table(
        ("Profile", "Actor", "What is tested"),
        (
            (
                "AI Results (AIR)",
                "Evidence Creator, with `objects` that name `seg` and `sr`",
                "measurements and regions as TID 1500 over segmentations, parametric maps, tracking identifiers, "
                "algorithm identification, image references; stored and committed. No connectathon was attended.",
            ),
        ),
    )
    yield ""
    yield "Not claimed: AI Workflow for Imaging, perfusion imaging with contrast, scheduled workflow,"
    yield "audit trail and node"
    yield "authentication (messages stay on the node and name no patient), and the Change Requester of imaging"
    yield "object change management, whose notes are only written."


def _default(section: str, key: str) -> Any:
    return getattr(getattr(config.Settings(), section), key)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) or "(empty)"


SECTIONS = (
    ("Overview", _overview),
    ("Implementation model", _implementation),
    ("Associations accepted", _accepting),
    ("Associations opened", _sending),
    ("DICOMweb", _web),
    ("Objects created", _created),
    ("Objects used", _received),
    ("Terminology, colours, character sets, security", _terminology),
    ("Storage classes accepted", _classes),
    ("Settings of a destination", _settings),
    ("IHE", _ihe),
)
