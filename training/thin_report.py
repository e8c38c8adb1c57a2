"""The report of a head in thin slices in Markdown: the figures of thin.json, and how to read them."""

from collections.abc import Iterator, Mapping
from typing import Any


def write(figures: Mapping[str, Any], picture: str) -> str:
    """The whole report; figures as in thin.json, picture: its path beside the report."""
    about = figures["about"]
    parts = [*_beginning(about, picture), _table(figures["maps"], about), *_reading(about), _seconds(about)]
    return "\n\n".join(parts) + "\n"


def patient(about: Mapping[str, Any]) -> str:
    """Who was scanned, one sentence."""
    one = about["patient"]
    return (
        f"{one['patient_id']}: {one['severity']} stroke, {one['side']} {one['vessel']}, {one['onset_h']} h; "
        f"Tmax > 6 s in {one['hypoperfused_ml']:.0f} ml, core {one['core_ml']:.0f} ml."
    )


def weights(about: Mapping[str, Any]) -> str:
    """What made the maps, one sentence."""
    used = about["weights"]
    return f"Weights {used['name']} version {used['version']}, training domain: {used['training_domain']}."


def _beginning(about: Mapping[str, Any], picture: str) -> Iterator[str]:
    inside, out = about["slices_in"], about["slices_out"]
    yield f"# {inside} slices in, {' or '.join(map(str, sorted(set(out.values()))))} maps out"
    yield f"A **virtual patient, simulated**: the figures say nothing about accuracy in real ones. {patient(about)}"
    yield (
        f"{inside} slices of {about['slice_mm']:g} mm, {about['matrix']} x {about['matrix']}, gantry tilt "
        f"{about['patient']['tilt_degrees']:g} degrees, noise {about['noise_hu']} HU in an average head, "
        "went through the node's own preprocessing, checks and engine. Slices that came back: "
        f"{', '.join(f'{kind} {count}' for kind, count in out.items())}; {about['slices_with_brain']} of them show "
        f"brain, the others hold 0. {weights(about)} Their sha256: {about['weights']['sha256'][:16]}."
    )
    if about["warnings"]:
        yield f"The node would print on the maps: {' '.join(about['warnings'])}"
    yield f"![Sagittal and coronal planes of CT, prediction and truth]({picture})"
    yield (
        "Planes through the middle of the true lesion, head up; the left of the coronal image is the patient's right. "
        "Columns: NCCT; prediction; truth on the same slices; the truth of every "
        f"{about['thick_mm']:g} mm, interpolated linearly. Lesion: true Tmax > 6 s."
    )


def _table(maps: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    columns = ("map", "unit", "flicker, predicted", "flicker, true", "ratio", "MAE, predicted")
    lines = [f"| {' | '.join(columns)} | MAE, {about['thick_mm']:g} mm interpolated |", "| --- | --- |" + " ---: |" * 5]
    for kind, one in maps.items():
        ratio = "–" if one["ratio"] is None else f"{one['ratio']:.1f}"
        flicker, error = (
            f"{one['flicker']:.3f} | {one['true_flicker']:.3f}",
            f"{one['mae']:.2f} | {one['thick_mae']:.2f}",
        )
        lines.append(f"| {kind} | {one['unit']} | {flicker} | {ratio} | {error} |")
    return "\n".join(lines)


def _reading(about: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Flicker: the mean of \\|m[s-1] - 2 m[s] + m[s+1]\\| / 2 along the slices: how far a slice stands out from the "
        "mean of its two neighbours. A map that changes evenly has none, and neither has one uniform grey: a low value "
        f"alone is no merit. MAE: mean absolute error against the truth. Both over the {about['compared_ml']} ml that "
        f"prediction, truth and interpolated truth all call brain (the truth alone: {about['true_brain_ml']} ml), of "
        "maps clipped to their range."
    )
    yield (
        f"The virtual patient is solved every {about['truth_solved_every_mm']:g} mm, near to what a perfusion console "
        "resolves, and its truth is linear in between. It therefore flickers little, and slices "
        f"{about['thick_mm']:g} mm apart lose less of it than they would of a finer truth. The interpolated truth has "
        "seen the perfusion, the prediction only the CT: their errors stand side by side to show sizes, not to compete."
    )


def _seconds(about: Mapping[str, Any]) -> str:
    stages = ", ".join(f"{name} {value:.1f}" for name, value in about["cpu_s"].items())
    return f"Processor seconds of this one run, threads of the engine {about['threads']}: {stages}."
