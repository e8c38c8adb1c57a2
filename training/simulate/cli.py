"""`python -m training simulate ...`: virtual patients as cohorts, DICOM studies, pictures, and the demo's patient."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from training.simulate import cohort as cohorts
from training.simulate import dicom_out, qa, sample
from training.simulate.dynamic import Protocol
from training.simulate.params import Mix, Severity
from training.simulate.patient import make
from training.simulate.render import Signal, thin
from training.simulate.vendors import Likeness

app = typer.Typer(help="Virtual stroke patients: SIMULATED, for research.", no_args_is_help=True, add_completion=False)

Mixed = Annotated[Mix, typer.Option(help="Shares of none, mild and severe.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same patient, bit for bit.")]
Matrix = Annotated[int, typer.Option(min=64, help="Pixels a side over 230 mm.")]
Class = Annotated[Severity | None, typer.Option(help="This class, instead of the mix.")]


@app.command()
def cohort(
    out: Annotated[Path, typer.Argument(help="Folder for the manifest and one file a patient.")],
    n: Annotated[int, typer.Option(min=1, help="How many patients.")] = 30,
    seed: Annotated[
        int, typer.Option(min=0, help="First seed: train 0, validation 1000000, test 2000000, external 3000000.")
    ] = 0,
    mix: Mixed = "balanced",
    severity: Class = None,
    ncct_signal: Annotated[Signal, typer.Option(help="Water uptake 0, .15, .30 or .45.")] = "mid",
    matrix: Matrix = 256,
    step: Annotated[float, typer.Option(min=0.5, help="mm between slices, and their thickness.")] = 4.0,
    counterfactual: Annotated[bool, typer.Option(help="Also the NCCT without any sign of the stroke.")] = False,
    repeat: Annotated[int, typer.Option(min=0, help="1, 2, ...: the same patients scanned again, other noise.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Patients made at the same time.")] = 2,
) -> None:
    """Write patients SEED .. SEED + N - 1; those already in the manifest are kept."""
    order = cohorts.Order(mix, severity, ncct_signal, matrix, step, counterfactual, repeat)
    try:
        manifest = cohorts.make_cohort(seed, n, order, out, processes)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem
    typer.echo(f"{len(cohorts.read_manifest(out))} virtual patients in {manifest}")


@app.command()
def dicom(
    out: Annotated[Path, typer.Argument(help="Folder for the instances.")],
    seed: Seed = 17,
    severity: Class = None,
    series: Annotated[str, typer.Option(help=f"Any of {', '.join(dicom_out.WHAT)}, with commas.")] = "ncct,maps",
    vendor: Annotated[Likeness, typer.Option(help="Whose habits the headers follow.")] = "plain",
    matrix: Matrix = 512,
    thickness: Annotated[float, typer.Option(min=0.5, help="mm; contiguous slices.")] = 4.0,
    frames: Annotated[int, typer.Option(min=10, help="Time points of the CT perfusion, 1.5 s apart.")] = 45,
) -> None:
    """Write one virtual patient as a DICOM study."""
    patient = make(seed, severity=severity)
    grid = cohorts.head_grid(patient, matrix)
    grid = grid if thickness == grid.thickness else thin(grid, thickness)
    try:
        datasets = dicom_out.study(patient, grid, series.split(","), vendor, Protocol(frames=frames))
        paths = dicom_out.write(iter(track(datasets, "instances", total=None)), out)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem
    typer.echo(f"{len(paths)} instances of VSIM-{seed} ({patient.params.severity}, {patient.params.kind}) in {out}")


@app.command(name="qa")
def quality(
    out: Annotated[Path, typer.Argument(help="The sheet of pictures to write, a PNG.")],
    n: Annotated[int, typer.Option(min=2, help="How many patients.")] = 12,
    seed: Seed = 0,
    mix: Mixed = "balanced",
    matrix: Matrix = 256,
    real: Annotated[Path | None, typer.Option(help="A real CT series to measure with the same rulers.")] = None,
) -> None:
    """Print the table of tissue means, noise and sizes, and draw the sheet."""
    heads = [qa.make_head(each, mix, matrix) for each in track(range(seed, seed + n), "virtual patients")]
    typer.echo(qa.markdown(qa.table(heads, real)))
    typer.echo(f"sheet in {qa.sheet(heads, out)}")


@app.command(name="sample")
def demo_sample(
    out: Annotated[Path, typer.Argument(help="Folder for ncct/*.dcm and truth.json; the node's is dicomnode/data.")],
    seed: Annotated[int, typer.Option(help="From 4000000, outside the cohorts.")] = sample.SEED,
) -> None:
    """Remake the demo's patient."""
    try:
        sample.write(out, seed)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem
    Console().print_json((out / "truth.json").read_text(encoding="utf-8"))
