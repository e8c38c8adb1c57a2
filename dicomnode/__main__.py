"""The commands. Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 refused input."""

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from dicomnode import __version__, account_commands, bookkeeping, config, settings_file
from dicomnode.config import ConfigError, Settings
from dicomnode.spool import Spool
from inference import weights
from inference.weights import Manifest, WeightsError

FAILED, USAGE = 1, 2
DEFAULT_PORT = 104

app = typer.Typer(
    help="Synthetic brain perfusion maps inside the PACS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a pretty traceback prints local values, and those may be a patient's
)
screen, errors = (
    Console(highlight=False, markup=False, soft_wrap=True),
    Console(stderr=True, markup=False, soft_wrap=True),
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="node.toml; else $DICOMNODE_CONFIG, ./node.toml, /etc/dicomnode/node.toml."),
]


app.add_typer(account_commands.app, name="account")


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
        _fail(str(failure))


@app.command()
def init(
    source: Annotated[list[str] | None, typer.Option(help="AET@HOST that may send; repeat for more.")] = None,
    destination: Annotated[
        list[str] | None, typer.Option(help="AET@HOST:PORT to send results to; repeat for more.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Accept virtual patients.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing node.toml.")] = False,
) -> None:
    """Write a commented node.toml that works, and make the folders and books it names."""
    path = Path("node.toml")
    if path.exists() and not force:
        _fail(f"{path} exists already; edit it, or overwrite it with --force", USAGE)
    try:
        sources = [settings_file.peer(text) for text in source or ()]
        destinations = [settings_file.peer(text) for text in destination or ()]
    except ValueError as error:
        _fail(str(error), USAGE)
    if any(d.port is None for d in destinations):
        _fail(f"a destination needs its port: AET@HOST:PORT, for example PACS@192.0.2.7:{DEFAULT_PORT}", USAGE)
    text = settings_file.render(sources, destinations, simulated=demo)
    path.write_text(text, encoding="utf-8")
    settings = _settings(path)
    Spool(settings.node.data_dir).make()
    _migrate(settings)
    screen.print(f"Wrote {path} and made {settings.node.data_dir}.")
    if not sources:
        screen.print("Nobody may send yet: add a [[source]] to it.")
    if not destinations:
        screen.print("Results would stay here: add a [[destination]] to it.")
    screen.print("Next: `dicomnode doctor` checks it, `dicomnode up` runs it.")


@app.command()
def up(config_file: ConfigOption = None) -> None:
    """Run everything in one process tree until stopped."""
    from dicomnode import tasks
    from dicomnode.up import Tree, stop_on_signals

    path = _find(config_file)
    settings = _settings(path)
    _weights(settings)
    Spool(settings.node.data_dir).make().clear_unfinished()
    _migrate(settings)
    _log()
    tasks.configure(settings)
    tasks.declare()
    Tree(path, (("web",),) if settings.web.enabled else ()).run(stop_on_signals())


@app.command()
def listen(config_file: ConfigOption = None) -> None:
    """Receive: the C-STORE SCP."""
    from dicomnode.receivers import Receivers
    from dicomnode.recovery import recover
    from dicomnode.scp.server import listening_socket
    from dicomnode.tls import server_context
    from dicomnode.up import stop_on_signals

    settings = _settings(_find(config_file))
    _log()
    try:
        _ = settings.listen.tls.certificate and server_context(settings.listen.tls)
    except ConfigError as error:
        _fail(str(error), USAGE)
    books, spool = _books(settings), Spool(settings.node.data_dir).make()
    try:
        listening = listening_socket(settings.listen.host, settings.listen.port)
    except OSError as error:
        listen_at = f"{settings.listen.host} port {settings.listen.port}"
        _fail(f"cannot listen on {listen_at}: {error.strerror}; try `dicomnode doctor`")
    now = datetime.now(UTC)
    bookkeeping.release_all(books, now)
    recover(books, spool, settings.lane_of_unknown, now)
    bookkeeping.close(books)
    Receivers(settings, listening).run(stop_on_signals())


@app.command()
def sweep(config_file: ConfigOption = None) -> None:
    """Decide: turn whole series into jobs, and pick up what was lost."""
    from dicomnode import tasks
    from dicomnode.sweep import Sweep
    from dicomnode.up import stop_on_signals

    settings = _settings(_find(config_file))
    _log()
    tasks.configure(settings)
    manifest = _weights(settings)
    spool = Spool(settings.node.data_dir).make()
    Sweep(settings, _books(settings), spool, manifest, tasks.wake_process, tasks.wake_deliver).run(stop_on_signals())


@app.command()
def work(
    queues: Annotated[
        str, typer.Option(help="Which queues; one after the other, a message of each in turn.")
    ] = "process.stroke,process.routine,deliver",
    config_file: ConfigOption = None,
) -> None:
    """Compute and send: one worker over these queues."""
    from dicomnode import tasks

    path = _find(config_file)
    settings = _settings(path)
    names = [name.strip() for name in queues.split(",")]
    if unknown := [name for name in names if name not in tasks.QUEUES]:
        _fail(f"no queue is called {unknown[0]!r}; they are {', '.join(tasks.QUEUES)}", USAGE)
    os.environ[config.ENVIRONMENT] = str(path)
    _log()
    _books(settings)
    _weights(settings)
    tasks.configure(settings)
    tasks.work(names)


@app.command()
def web(config_file: ConfigOption = None) -> None:
    """Serve: DICOMweb and the administrator's page."""
    from dicomnode.web.server import serve  # only here: it brings the web framework

    settings = _settings(_find(config_file))
    _log()
    books = _books(settings)
    Spool(settings.node.data_dir).make()
    try:
        served = serve(settings, books)
    except ConfigError as error:
        _fail(str(error), USAGE)
    if not served:
        where = f"{settings.web.host} port {settings.web.port}"
        _fail(f"cannot serve on {where}: something else does; change [web] port, or try `dicomnode doctor`")


@app.command()
def status(config_file: ConfigOption = None) -> None:
    """What the node holds, is doing, and has refused in the last day."""
    from dicomnode import explain

    for line in explain.state_of_the_node(_books(_settings(_find(config_file))), datetime.now(UTC)):
        screen.print(line)


@app.command("explain")
def explain_(
    key: Annotated[str, typer.Argument(help="Accession number, study or series UID, or job id.")],
    config_file: ConfigOption = None,
) -> None:
    """Where are my maps? The whole story of one study."""
    from dicomnode import explain

    lines = list(explain.tell(_books(_settings(_find(config_file))), key))
    if not lines:
        _fail(f"nothing is known of {key}; `dicomnode status` lists what was refused at the door")
    for line in lines:
        screen.print(line)


@app.command()
def retry(
    key: Annotated[str, typer.Argument(help="Accession number, study or series UID, or job id.")],
    config_file: ConfigOption = None,
) -> None:
    """Bring the failed or rejected jobs of a study back: what they lack is made and sent again."""
    books, now = _books(_settings(_find(config_file))), datetime.now(UTC)
    jobs = [job for uid in bookkeeping.find_studies(books, key) for job in bookkeeping.story(books, uid).jobs]
    again = [job.id for job in jobs if bookkeeping.retry(books, job.id, now)]
    if not again:
        _fail(f"nothing of {key} has failed or was rejected; `dicomnode explain {key}` tells its state")
    screen.print(f"Brought back: {', '.join(again)}")


@app.command()
def resend(
    key: Annotated[str, typer.Argument(help="Accession number, study or series UID, or job id.")],
    to: Annotated[str, typer.Option(help="The name of one destination; else all of them.")] = "",
    config_file: ConfigOption = None,
) -> None:
    """Send the finished files of a study again, byte for byte; no state changes and nothing is computed."""
    settings = _settings(_find(config_file))
    chosen = [d for d in settings.destination if to in ("", d.name)]
    if not chosen:
        known = ", ".join(d.name for d in settings.destination) or "none; add a [[destination]] to node.toml"
        _fail(f"no destination is called {to!r}; there are {known}" if to else f"destinations: {known}", USAGE)
    books, wanted = _books(settings), [(d.name, d.kinds) for d in chosen]
    again = {job: bookkeeping.resend(books, job, wanted, datetime.now(UTC)) for job in bookkeeping.current(books, key)}
    for job_id, made in again.items():
        for name, count in made.items():
            screen.print(
                f"{count} files of job {job_id} go to {name} again; `dicomnode explain {job_id}` follows them."
            )
    if not any(again.values()):
        _fail(f"{key} has no finished files to send; `dicomnode explain {key}` tells why")


@app.command()
def doctor(config_file: ConfigOption = None) -> None:
    """Check settings, disk, books, weights, port and destinations; exit 1 where something needs mending."""
    from dicomnode import doctor

    findings = list(doctor.examine(_settings(_find(config_file))))
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


@app.command()
def migrate(config_file: ConfigOption = None) -> None:
    """Bring the books to this version."""
    settings = _settings(_find(config_file))
    Spool(settings.node.data_dir).make()
    _migrate(settings)
    screen.print("The books are of this version.")


def _find(given: Path | None) -> Path:
    try:
        return config.find(given)
    except ConfigError as error:
        _fail(str(error), USAGE)


def _settings(path: Path) -> Settings:
    try:
        return config.load(path)
    except ConfigError as error:
        _fail(str(error), USAGE)


def _books(settings: Settings) -> bookkeeping.Books:
    try:
        return bookkeeping.open_books(settings.books_url)
    except bookkeeping.BooksOutdated as error:
        _fail(str(error), USAGE)
    except bookkeeping.BooksAway as error:
        _fail(f"the books do not answer: {error.orig}; see `dicomnode doctor`")


def _migrate(settings: Settings) -> None:
    try:
        bookkeeping.migrate(settings.books_url)
    except bookkeeping.BooksAway as error:
        _fail(f"the books do not answer: {error.orig}; see `dicomnode doctor`")


def _weights(settings: Settings) -> Manifest:
    try:
        return weights.read(settings.weights_folder)
    except WeightsError as error:
        _fail(f"[processing] weights: {error}", USAGE)


def _fail(message: str, code: int = FAILED) -> NoReturn:
    errors.print(message)
    raise typer.Exit(code)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("pynetdicom", "alembic", "celery"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("kombu").setLevel(logging.ERROR)  # it warns that a folder has no host name


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
