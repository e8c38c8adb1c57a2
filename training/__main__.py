"""The commands of training: `python -m training COMMAND --help`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inference.maps import KINDS
from inference.refusal import Refused
from inference.regions import HYPOPERFUSED
from inference.weights import WeightsError
from training import bench as benchmark
from training import describe as description
from training import evaluate as evaluation
from training import familiar
from training import gate as gates
from training import prepare as preparation
from training import recipe as recipes
from training import thin as thin_slices
from training import train as trainer
from training import untrained as random_weights
from training.cohort import clinical as clinics
from training.cohort.captures import read_styles
from training.data import CohortError
from training.simulate.cli import app as simulate
from training.simulate.cohort import NCCT, WITHOUT_SIGNS
from training.statistics import DRAWS

app = typer.Typer(
    help="How the weights came to be: models described, weights made.", no_args_is_help=True, add_completion=False
)


app.add_typer(simulate, name="simulate")


@app.command()
def describe(
    model: Annotated[str, typer.Argument(help=f"One of: {', '.join(description.MODELS)}.")],
    maps: Annotated[int, typer.Option(min=1, help="How many perfusion maps the generator makes.")] = 5,
    width: Annotated[int, typer.Option(min=1, help="Channels of the first layer; the paper has 64.")] = 64,
) -> None:
    """Print the blocks, shapes, parameters and arithmetic of a model; nothing is trained or loaded."""
    if model not in description.MODELS:
        raise typer.BadParameter(
            f"no model is called {model!r}; choose one of: {', '.join(description.MODELS)}", param_hint="MODEL"
        )
    console = Console()
    for network in description.MODELS[model](maps, width):
        description.show(network, console)


@app.command()
def gate(
    out: Annotated[Path, typer.Argument(help="Markdown file for the tables.")],
    cohort: Annotated[list[Path], typer.Option(help="Folder of `simulate cohort`; may be repeated.", exists=True)],
    real: Annotated[list[Path] | None, typer.Option(help="Folder of one real head; may be repeated.")] = None,
    spoiled: Annotated[int, typer.Option(min=0, help="Patients of each cohort that are also spoiled.")] = 10,
    mapped: Annotated[int, typer.Option(min=0, help="Patients of each cohort whose maps are judged.")] = 20,
    processes: Annotated[int, typer.Option(min=1, help="Patients judged at the same time.")] = 1,
) -> None:
    """Print what the quality gate says of good heads, of spoiled ones, and of maps under wrong names."""
    tables = gates.report(cohort, real or [], spoiled, mapped, processes)
    out.write_text(tables, encoding="utf-8")
    typer.echo(tables)


@app.command("familiar")
def familiar_(
    folder: Annotated[Path, typer.Argument(help="Weights; familiar.json is written, the manifest names it.")],
    heads: Annotated[int, typer.Option(min=2, help="Virtual patients from the seeds of training.")] = 60,
    held_out: Annotated[int, typer.Option(min=1, help="From the seeds of validation; one in N + 1 is warned of.")] = 59,
) -> None:
    """Measure what training heads look like to the encoder, so that the node can warn of a head unlike them."""
    try:
        found = familiar.add(folder, heads, held_out)
    except WeightsError as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    typer.echo(f"limit {found.limit:.2f}, from {found.held_out} heads, {found.heads} others gave the mean")


@app.command()
def untrained(
    out: Annotated[Path, typer.Argument(help="Folder to write model.safetensors and manifest.json into.")],
    width: Annotated[int, typer.Option(min=1, help="Channels of the first layer.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and width give the same bytes.")] = 0,
) -> None:
    """Write seeded random weights, marked as untrained, for tests and first light."""
    typer.echo(f"untrained weights written to {random_weights.make(out, width=width, seed=seed)}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file such as config/training/magic.toml.", exists=True)],
    cohort: Annotated[
        Path, typer.Argument(help="Folder with manifest.jsonl and a file for each patient.", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint, the curves and the best weights.")],
    start: Annotated[
        Path | None, typer.Option(help="Weights to begin with, of an earlier recipe.", exists=True)
    ] = None,
) -> None:
    """Train a generator, or go on where the checkpoint in OUT ends; several GPUs: torchrun ... -m training train."""
    try:
        best = trainer.train(recipes.load(recipe), cohort, out, start)
    except (recipes.RecipeError, WeightsError, CohortError) as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    typer.echo(f"the weights of the best epoch are in {best}")


@app.command("prepare")
def prepare_(
    source: Annotated[Path, typer.Argument(help="Folder that `simulate cohort` wrote.", exists=True)],
    out: Annotated[Path, typer.Argument(help="Folder for the samples and their manifest.")],
    slices: Annotated[int, typer.Option(min=0, help="Slices of each patient, evenly over the brain; 0 is all.")] = 10,
    counterfactual: Annotated[bool, typer.Option(help="The CT without any sign of the stroke.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Patients prepared at the same time.")] = 2,
) -> None:
    """Put virtual patients through the node's own preprocessing; those in the manifest already are kept."""
    choice = preparation.Choice(slices, WITHOUT_SIGNS if counterfactual else NCCT)
    try:
        typer.echo(f"prepared: {preparation.prepare(source, out, choice, processes)}")
    except CohortError as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None


@app.command()
def clinical(
    source: Annotated[Path, typer.Argument(help="Folder of DICOM files, in any order and depth.", exists=True)],
    out: Annotated[Path, typer.Argument(help="Folder for the samples; OUT-private gets salt, report and pictures.")],
    slices: Annotated[int, typer.Option(min=0, help="Slices of each patient, evenly over the brain; 0 is all.")] = 10,
    kinds: Annotated[str, typer.Option(help="Maps that every study must have, with commas.")] = ",".join(KINDS),
    captures: Annotated[
        Path | None, typer.Option(help="TOML with [CBF] ceiling and table, ...: how the console colours.", exists=True)
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="CSV with patient_id,class; else core over penumbra decides.", exists=True)
    ] = None,
    hours: Annotated[float, typer.Option(min=0.0, help="At most, between head CT and maps.")] = 3.0,
    simulated: Annotated[
        bool, typer.Option(help="Take objects that say Synthetic Data YES: virtual patients.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Patients at the same time.")] = 2,
) -> None:
    """Turn a site's own head CT and perfusion maps into a de-identified cohort; docs/clinical-cohort.md."""
    wanted = tuple(kinds.split(","))
    if unknown := [kind for kind in wanted if kind not in KINDS]:
        raise typer.BadParameter(f"no map is called {', '.join(unknown)}; choose among {', '.join(KINDS)}")
    try:
        order = clinics.Order(slices, hours, wanted, read_styles(captures), clinics.read_classes(classes), simulated)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem
    verdicts = clinics.collect(source, out, order, processes)
    used = sum(not verdict.why for verdict in verdicts)
    typer.echo(f"{used} of {len(verdicts)} studies are in {out}; why not the others: {out}-private/report.md")
    if not used:
        raise typer.Exit(1)


@app.command()
def evaluate(
    weights: Annotated[Path, typer.Argument(help="Folder with model.safetensors and manifest.json.")],
    cohort: Annotated[Path, typer.Argument(help="Folder of patients never trained on, prepared with --slices 0.")],
    out: Annotated[Path, typer.Argument(help="Folder for metrics.json, report.md and pictures.")],
    train_cohort: Annotated[Path | None, typer.Option(help="Its split train is what baselines are fitted on.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Its split validation fixes the threshold of presence.")
    ] = None,
    counterfactual: Annotated[Path | None, typer.Option(help="COHORT prepared with --counterfactual.")] = None,
    retest: Annotated[
        Path | None, typer.Option(help="The patients of COHORT from `simulate cohort --repeat 1`, prepared.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which patients of COHORT: test or external.")] = "test",
    tmax_threshold: Annotated[float, typer.Option(help="s; chosen on validation patients.")] = HYPOPERFUSED,
    threads: Annotated[int, typer.Option(min=1, help="Of the engine; part of the result.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Patients measured at the same time.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = DRAWS,
) -> None:
    """Measure weights on patients never seen, beside trivial baselines, with intervals, tables and pictures."""
    request = evaluation.Request(
        weights=weights,
        cohort=cohort,
        out=out,
        train_cohort=train_cohort,
        validation=validation,
        counterfactual=counterfactual,
        retest=retest,
        split=split,
        tmax_threshold=tmax_threshold,
        threads=threads,
        workers=workers,
        seed=seed,
        draws=draws,
    )
    try:
        typer.echo(f"the report is in {evaluation.evaluate(request)}")
    except (WeightsError, CohortError, evaluation.EvaluationError) as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None


@app.command()
def thin(
    weights: Annotated[Path, typer.Argument(help="Folder with model.safetensors and manifest.json.")],
    out: Annotated[Path, typer.Argument(help="Folder for thin.json, thin.md and pictures/thin.png.")],
    seed: Annotated[int, typer.Option(min=0, help="A stroke that is never trained on, from 2000000.")] = (
        thin_slices.SEED
    ),
    slice_mm: Annotated[float, typer.Option(min=0.5, help="Between slices, and their thickness.")] = 1.0,
) -> None:
    """Lay the maps of a virtual head in 161 thin slices beside the truth: sagittal and coronal planes, and figures."""
    try:
        typer.echo(f"the report is in {thin_slices.thin(thin_slices.Request(weights, out, seed, slice_mm))}")
    except (WeightsError, thin_slices.ThinError, Refused) as problem:
        typer.echo(problem, err=True)
        raise typer.Exit(2) from None


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="Updates of each case that are timed.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Slices in one update.")] = 8,
) -> None:
    """Time updates of several widths and precisions on this machine, side by side."""
    benchmark.show(benchmark.bench(rounds=rounds, batch=batch), Console())


def main() -> None:
    """The entry point."""
    app(prog_name="python -m training")


if __name__ == "__main__":
    main()
