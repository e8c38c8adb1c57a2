"""The commands. Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 refused input."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import __version__, settings_file
from dicomnode.commands import account, audit, services, studies
from dicomnode.commands.common import FAILED, USAGE, ConfigOption, fail, load, screen, settings_of
from dicomnode.commands.purge import purge
from dicomnode.commands.selftest import selftest
from dicomnode.commands.support import support_bundle
from dicomnode.spool import Spool

DEFAULT_PORT = 104
COMMANDS: tuple[Callable[..., None], ...] = (
    *(services.up, services.prepare, services.listen, services.sweep, services.work, services.web, services.migrate),
    *(studies.status, studies.retry, studies.resend, purge, selftest),
)

app = typer.Typer(
    help="Synthetic brain perfusion maps inside the PACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a pretty traceback prints local values, and those may be a patient's
)
app.add_typer(account.app, name="account")
app.add_typer(audit.app, name="audit")
for command in COMMANDS:
    app.command()(command)
app.command("explain")(studies.tell)
app.command("support-bundle")(support_bundle)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Receives head CT from scanners and PACS, and sends synthetic perfusion maps back."""
    if show:
        screen.print(f"dicomnode {__version__}")
        raise typer.Exit


@app.command()
def demo(
    source: Annotated[Path | None, typer.Option("--input", help="A folder with your own head CT series.")] = None,
    out: Annotated[Path, typer.Option(help="Where the results are left.")] = Path("demo-out"),
) -> None:
    """Send a virtual patient (or your series) through a node to a small PACS, all on this machine."""
    from dicomnode import data, demo  # only here: it brings Pillow and both ends of the network

    files = sorted(p for p in source.rglob("*") if p.is_file()) if source else data.ncct()
    out.mkdir(parents=True, exist_ok=True)
    try:
        demo.run(files, out, screen.print)
    except demo.DemoFailed as failure:
        fail(str(failure))


@app.command()
def init(
    source: Annotated[list[str] | None, typer.Option(help="AET@HOST that may send; repeat for more.")] = None,
    destination: Annotated[
        list[str] | None, typer.Option(help="AET@HOST:PORT to send results to; repeat for more.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Accept virtual patients.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing node.toml.")] = False,
    data_dir: Annotated[str, typer.Option(help="Where instances, results and books are kept.")] = "data",
    only_settings: Annotated[bool, typer.Option("--only-settings", help="Write node.toml, make nothing.")] = False,
) -> None:
    """Write a commented node.toml that works, and make the folders and books it names."""
    path = Path("node.toml")
    if path.exists() and not force:
        fail(f"{path} exists already; edit it, or overwrite it with --force", USAGE)
    try:
        sources = [settings_file.peer(text) for text in source or ()]
        destinations = [settings_file.peer(text) for text in destination or ()]
    except ValueError as error:
        fail(str(error), USAGE)
    if any(d.port is None for d in destinations):
        fail(f"a destination needs its port: AET@HOST:PORT, for example PACS@192.0.2.7:{DEFAULT_PORT}", USAGE)
    text = settings_file.render(sources, destinations, simulated=demo, data_dir=data_dir)
    path.write_text(text, encoding="utf-8")
    settings = load(path)
    if only_settings:
        screen.print(f"Wrote {path}.")
    else:
        Spool(settings.node.data_dir).make()
        services.bring_up_to_date(settings)
        screen.print(f"Wrote {path} and made {settings.node.data_dir}.")
    if not sources:
        screen.print("Nobody may send yet: add a [[source]] to it.")
    if not destinations:
        screen.print("Results would stay here: add a [[destination]] to it.")
    screen.print("Next: `dicomnode doctor` checks it, `dicomnode up` runs it.")


@app.command()
def doctor(config_file: ConfigOption = None) -> None:
    """Check settings, disk, books, weights, port and destinations; exit 1 where something needs mending."""
    from dicomnode import doctor

    findings = list(doctor.examine(settings_of(config_file)))
    for finding in findings:
        screen.print(f"{'MEND' if finding.remedy else 'ok':4s}  {finding.check}: {finding.found}")
        if finding.remedy:
            screen.print(f"      -> {finding.remedy}")
    if any(finding.remedy for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def conformance() -> None:
    """Print the DICOM conformance statement of this version, as Markdown."""
    from dicomnode import conformance  # only here: it brings the listener and the writer

    typer.echo(conformance.statement(), nl=False)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
