"""Weights on disk: `model.safetensors` beside `manifest.json` (design.md contract 10), never pickles.

The manifest says what the weights are and carries the sha256 of the tensors; nothing is loaded unless it agrees.
Reading a manifest does not import torch, so the sweep can name the weights without paying for them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.maps import KINDS, MapKind
from inference.smoothing import Smoothing

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "ncct-virtual"
MODEL, MANIFEST = "model.safetensors", "manifest.json"
UNITS = ("physical", "relative")
FARTHEST = 20.0  # mm of smoothing; beyond it a map says the same of the whole head
TRAINING_DOMAINS = ("virtual", "clinical", "untrained")


class WeightsError(Exception):
    """The weights cannot be used; the message names the file, what was expected, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a set of weights is.

    name, version, route: "ncct-virtual", "1", "ncct".
    architecture, width, norm: "magic", channels of its first encoder, "instance" or "batch".
    kinds: names of rows of maps.KINDS in the order of the output channels; ranges: name -> (lowest, highest) in the
        unit of the kind, what -1 and 1 stand for.
    units: physical (absolute codes and units) or relative (no unit).
    preprocessing: version of inference.preprocess that the training data went through.
    training_domain: virtual (simulated patients), clinical, or untrained (random).
    data_digest: sha256 of the training data, empty when untrained; seeds: of every random source in training.
    commit: of the repository at training; sha256: of model.safetensors, filled in by save.
    metrics: name -> value, measured on patients never seen; licence: of the weights.
    familiar: sha256 of familiar.json (`inference.familiar`), empty where it was not made.
    smoothing: name -> how a map is smoothed across slices (`inference.smoothing`); the others are not.
    """

    name: str
    version: str
    route: str
    architecture: str
    width: int
    norm: str
    kinds: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    units: str
    preprocessing: str
    training_domain: str
    data_digest: str
    seeds: tuple[int, ...]
    commit: str
    licence: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    smoothing: Mapping[str, Smoothing] = field(default_factory=dict)
    familiar: str = ""
    sha256: str = ""

    @property
    def map_kinds(self) -> tuple[MapKind, ...]:
        """The rows of maps.KINDS, in the order of the output channels."""
        return tuple(KINDS[name] for name in self.kinds)


def ranges(kinds: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """The ranges a manifest states for these kinds: 0..ceiling of each."""
    return {name: (0.0, KINDS[name].ceiling) for name in kinds}


def shipped(name: str = DEFAULT) -> Path:
    """The folder of weights that come with the software."""
    here = Path(__file__).parent
    names = sorted(path.parent.name for path in here.glob(f"*/{MANIFEST}"))
    if name not in names:
        raise WeightsError(f"no weights named {name!r} are shipped; choose one of: {', '.join(names) or 'none'}")
    return here / name


def read(folder: Path) -> Manifest:
    """The manifest of a folder, checked field by field; the tensors are not touched."""
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise WeightsError(
            f"{path} is missing: a folder of weights holds {MODEL} and {MANIFEST}; name another folder or copy both"
        ) from None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} is not JSON ({error}); copy the folder again from where it came") from None
    return _manifest(path, found)


def verify(folder: Path) -> Manifest:
    """The manifest of a folder whose tensors are those that it describes; torch is not imported."""
    manifest = read(folder)
    _check_digest(folder / MODEL, manifest.sha256)
    return manifest


def load(folder: Path) -> tuple[Manifest, dict[str, "Tensor"]]:
    """The manifest and the state dict, as float32 whatever they are stored in.

    Raises WeightsError when the sha256 of the tensors is not the one that the manifest states.
    """
    from safetensors import SafetensorError  # with torch below it takes a second to import; readers of manifests
    from safetensors.torch import load_file  # do without both

    manifest = read(folder)
    _check_digest(folder / MODEL, manifest.sha256)
    try:
        tensors = load_file(folder / MODEL)
    except SafetensorError as error:
        raise WeightsError(f"{folder / MODEL} is not a safetensors file ({error}); export the weights again") from None
    return manifest, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def save(folder: Path, manifest: Manifest, state: Mapping[str, "Tensor"], *, half: bool = False) -> Manifest:
    """Write a state dict and its manifest; the manifest comes back with the sha256 of what was written.

    half: store floating point tensors as float16, half the size; load widens them again.
    """
    from safetensors.torch import save_file  # as in load

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(tensor, half) for name, tensor in state.items()}
    save_file(tensors, folder / MODEL)
    manifest = replace(manifest, sha256=_sha256(folder / MODEL))
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest beside tensors that it describes already."""
    _check(folder / MANIFEST, manifest)
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def text_of(manifest: Manifest) -> str:
    """A manifest as JSON, for what is kept beside the results of its weights."""
    return json.dumps(asdict(manifest), ensure_ascii=False)


def of_text(path: Path, text: str) -> Manifest:
    """The manifest that `text_of` wrote; path: of the file in which it stands."""
    return _manifest(path, json.loads(text))


def _stored(tensor: "Tensor", half: bool) -> "Tensor":
    tensor = tensor.detach().cpu()
    return (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()


def _manifest(path: Path, found: object) -> Manifest:
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds {type(found).__name__}, expected a JSON object")
    expected = {f.name for f in fields(Manifest)}
    if missing := sorted(expected - found.keys()):
        raise WeightsError(f"{path} lacks {', '.join(missing)}; write it with inference.weights.save")
    if unknown := sorted(found.keys() - expected):
        raise WeightsError(f"{path} has unknown fields {', '.join(unknown)}; it may want a newer software")
    values: dict[str, Any] = dict(found)
    values["kinds"], values["seeds"] = tuple(values["kinds"]), tuple(values["seeds"])
    values["smoothing"] = {name: Smoothing(**how) for name, how in values["smoothing"].items()}
    values["ranges"] = {name: (float(low), float(high)) for name, (low, high) in values["ranges"].items()}
    manifest = Manifest(**values)
    _check(path, manifest)
    return manifest


def _check(path: Path, manifest: Manifest) -> None:
    if unknown := [name for name in manifest.kinds if name not in KINDS]:
        raise WeightsError(f"{path} names the map {unknown[0]!r}; this software knows {', '.join(KINDS)}")
    if not manifest.kinds or len(set(manifest.kinds)) != len(manifest.kinds):
        raise WeightsError(f"{path}: kinds must name each map once, found {list(manifest.kinds)}")
    if manifest.ranges != (expected := ranges(manifest.kinds)):
        raise WeightsError(
            f"{path}: the ranges must be {expected}, found {dict(manifest.ranges)}{_factors(manifest, expected)}; "
            "train again"
        )
    if unknown := sorted(set(manifest.smoothing) - set(manifest.kinds)):
        raise WeightsError(f"{path} smooths {unknown[0]!r}, which is none of its maps: {', '.join(manifest.kinds)}")
    if any(not 0 < how.sigma_mm <= FARTHEST for how in manifest.smoothing.values()):
        raise WeightsError(
            f"{path}: sigma_mm of smoothing lies between 0 and {FARTHEST:g} mm; export the weights again"
        )
    if manifest.units not in UNITS:
        raise WeightsError(f"{path}: units is one of {', '.join(UNITS)}, found {manifest.units!r}")
    if manifest.training_domain not in TRAINING_DOMAINS:
        raise WeightsError(
            f"{path}: training_domain is one of {', '.join(TRAINING_DOMAINS)}, found {manifest.training_domain!r}"
        )


def _factors(manifest: Manifest, expected: Mapping[str, tuple[float, float]]) -> str:
    """The names of maps whose range is that of another unit, and by which factor."""
    found = {name: manifest.ranges[name][1] / high for name, (_, high) in expected.items() if name in manifest.ranges}
    wrong = [f"{name} is {factor:.4g} times too large" for name, factor in found.items() if factor > 2]
    return f" ({', '.join(wrong)}: another unit?)" if wrong else ""


def _check_digest(path: Path, expected: str) -> None:
    if not path.is_file():
        raise WeightsError(f"{path} is missing, its manifest is there; copy the folder again from where it came")
    if (found := _sha256(path)) != expected:
        raise WeightsError(
            f"{path} is not the file its manifest describes: sha256 expected {expected}, found {found}; "
            "copy the folder again from where it came, and do not edit either file"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
