"""The commands of training: `python -m training COMMAND --help`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training import describe as description
from training import untrained as random_weights

app = typer.Typer(
    help="How the weights came to be: models described, weights made.", no_args_is_help=True, add_completion=False
)


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
def untrained(
    out: Annotated[Path, typer.Argument(help="Folder to write model.safetensors and manifest.json into.")],
    width: Annotated[int, typer.Option(min=1, help="Channels of the first layer.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and width give the same bytes.")] = 0,
) -> None:
    """Write seeded random weights, marked as untrained, for tests and first light."""
    typer.echo(f"untrained weights written to {random_weights.make(out, width=width, seed=seed)}")


def main() -> None:
    """The entry point."""
    app(prog_name="python -m training")


if __name__ == "__main__":
    main()
