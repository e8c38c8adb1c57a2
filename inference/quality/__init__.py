"""Is this a head with a brain that maps may be made of? Judged by the image alone: no text element is read.

One table of checks. Each is a number measured on the image with its limits; the first that fails with a reason code
refuses the study, those without one only warn. docs/gate.md says what each of them found on which heads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inference import preprocess
from inference.preprocess import Prepared
from inference.quality.findings import Findings, measure
from inference.quality.maps import judge as judge_maps
from inference.refusal import Refused
from inference.volume import AIR, Volume

__all__ = ["CHECKS", "Check", "Findings", "judge", "judge_maps", "measure"]


@dataclass(frozen=True, slots=True)
class Check:
    """A finding and its limits. code: of the refusal, empty for a warning; sentence: may name {value}."""

    code: str
    of: Callable[[Findings], float]
    low: float
    high: float
    sentence: str


def _sharp(f: Findings) -> float:
    """The noise of a kernel that sharpens edges, 0 for any other: its noise has no grain, however thin the slices."""
    return f.noise if f.grain < 0.15 else 0.0


ANY = float("inf")
CHECKS = (
    Check("no-rescale", lambda f: f.air, -ANY, -850.0, "air measures {value:.0f} HU, so the rescale is wrong"),
    Check("phantom", lambda f: f.trapped_air, 0.0, 0.2, "the skull holds {value:.1f} litres of air: this is a phantom"),
    Check("not-head", lambda f: f.brain, 0.05, ANY, "no brain is found in the series"),
    Check("not-head", lambda f: f.brain, 0.0, 2.0, "what could be brain measures {value:.1f} litres: this is no head"),
    Check("partial-brain", lambda f: f.cut, 0.0, 0.05, "the field of view cuts off {value:.0%} of what lies around it"),
    Check("not-head", lambda f: f.skull, 0.4, 1.0, "only {value:.0%} of what lies around the tissue is bone"),
    Check("phantom", lambda f: f.variety, 5.0, ANY, "the inside of the skull is one uniform grey: this is a phantom"),
    Check("not-head", lambda f: f.median, 15.0, 50.0, "the inside of the skull measures {value:.0f} HU, unlike brain"),
    Check("partial-brain", lambda f: f.height, 60.0, ANY, "the series shows {value:.0f} mm of brain; 60 mm are needed"),
    Check("partial-brain", lambda f: f.covered, 0.8, ANY, "the brain in the series is too small for its height"),
    Check("partial-brain", lambda f: f.broken, 0.0, 60.0, "the brain breaks off at {value:.0f} cm2 within the series"),
    Check("contrast", lambda f: f.vessels, 0.0, 45.0, "vessels as dense as contrast show over {value:.0f} mm of brain"),
    Check("metal", lambda f: f.dark, 0.0, 0.03, "streaks or air hide {value:.0%} of the brain"),
    Check("motion", lambda f: f.jump, 0.0, 8.0, "the head moves {value:.0f} mm aside from one slice to the next"),
    Check("bone-kernel", _sharp, 0.0, 14.0, "noise of {value:.0f} HU without grain: a bone kernel; send the soft one"),
    Check("", lambda f: f.brain, 0.0, 1.75, "The brain with its fluid measures {value:.2f} litres, which is unusual."),
    Check("", lambda f: f.covered, 1.0, ANY, "The brain is small for its height, which is unusual."),
    Check("", lambda f: f.median, 22.0, 42.0, "The brain measures {value:.0f} HU, which is unusual."),
    Check("", lambda f: f.slices, 20, ANY, "The series holds only {value:.0f} slices; there are no maps between them."),
    Check("", lambda f: f.step, 0.0, 10.0, "Slices lie {value:.0f} mm apart; there are no maps between them."),
    Check("", lambda f: f.top, 0.0, 25.0, "The top of the brain lies outside the series."),
    Check("", lambda f: f.bottom, 0.0, 25.0, "The bottom of the brain lies outside the series."),
    Check("", lambda f: f.cut, 0.0, 0.01, "The field of view cuts off a part of the head."),
    Check("", lambda f: f.bright, 0.0, 30.0, "Dense over {value:.0f} mm of brain: contrast, calcium or blood."),
    Check("", lambda f: f.metal, 0.0, 0.02, "Metal lies in or near the brain."),
    Check("", lambda f: f.dark, 0.0, 0.002, "Air, fat or streaks lie in the brain."),
    Check("", lambda f: f.jump, 0.0, 2.5, "The head moved {value:.0f} mm between slices."),
    Check("", lambda f: f.noise, 0.0, 15.0, "The noise is high: {value:.0f} HU."),
)


def judge(volume: Volume, prepared: Prepared) -> tuple[str, ...]:
    """Warnings as sentences; raises Refused with the code and sentence of the first check that refuses."""
    try:
        return _judged(measure(volume, prepared))
    except Refused as refusal:
        if refusal.code == "not-head" and (shift := _shift(volume)) and _is_head(volume, shift):
            words = f"the values are {abs(shift):.0f} HU too {'low' if shift > 0 else 'high'} for a head"
            raise Refused("no-rescale", f"{words}: the rescale of the series is wrong") from refusal
        raise


def _judged(findings: Findings) -> tuple[str, ...]:
    warnings = []
    for check in CHECKS:
        value = check.of(findings)
        if check.low <= value <= check.high:
            continue
        sentence = check.sentence.format(value=value)
        if check.code:
            raise Refused(check.code, sentence)
        warnings.append(sentence)
    return tuple(warnings)


BRAIN = 32.0  # HU: of most voxels within a head that are not air
BIN, ABOVE, ENOUGH = 4.0, 50, 0.02  # HU; bins from air to soft tissue, at least; of the count of air
DOUBTFUL = 12.0  # HU: by less than this no rescale is wrong


def _shift(volume: Volume) -> float:
    """HU to add so that what there is most of, air apart, is as dense as brain; 0 where that changes little."""
    measured = volume.hu[volume.hu != AIR]  # that is also what padding and what was clipped became
    if not measured.size:
        return 0.0
    edges = np.arange(measured.min(), measured.max() + 2 * BIN, BIN)
    counts, _ = np.histogram(measured, edges)
    most = int(counts.argmax())
    above = counts[most + ABOVE :]
    if above.size and above.max() >= ENOUGH * counts[most]:
        most += ABOVE + int(above.argmax())
    shift = BRAIN - float(edges[most] + BIN / 2)
    return shift if abs(shift) > DOUBTFUL else 0.0


def _is_head(volume: Volume, shift: float) -> bool:
    shifted = replace(volume, hu=np.where(volume.hu == AIR, AIR, volume.hu + shift).astype(np.float32))
    try:
        _judged(measure(shifted, preprocess.prepare(shifted)))
    except Refused:
        return False
    return True
