"""`dispatcher`: the command line. Declares commands and options; `commands` and `demo` do the work.

Knows how arguments are written and how a failure is told: on stderr, with exit 1, or 2 for
arguments that cannot be right. Each command imports what it needs when it runs, so that
a worker carries no table and a table starts no worker.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.commands import desk
from dispatcher.settings import Settings, SettingsError, load

app = typer.Typer(
    name="dispatcher",
    help="Tells everybody who has to know when a network breaks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
keys_app = typer.Typer(no_args_is_help=True, help="Keys for the HTTP interface.")
app.add_typer(keys_app, name="keys")
people_app = typer.Typer(no_args_is_help=True, help="People who sign in to the console.")
app.add_typer(people_app, name="people")

PROCESSES = "Processes"
OPERATORS = "Operators"

app.add_typer(desk.incidents_app, name="incidents", rich_help_panel=OPERATORS)
app.command(rich_help_panel=OPERATORS)(desk.preview)
app.command(rich_help_panel=OPERATORS)(desk.approve)
app.command(rich_help_panel=OPERATORS)(desk.ledger)
app.command(rich_help_panel=OPERATORS)(desk.stop)
app.command(rich_help_panel=OPERATORS)(desk.resume)
app.add_typer(desk.recipients_app, name="recipients", rich_help_panel=OPERATORS)


def settings_or_exit() -> Settings:
    """The settings, or exit 1 with every variable that is wrong."""
    try:
        return load()
    except SettingsError as error:
        for name, reason in error.problems:
            typer.echo(f"{name}: {reason}", err=True)
        raise typer.Exit(1) from None


@app.command(rich_help_panel=PROCESSES)
def migrate(
    wait: Annotated[float, typer.Option(help="Seconds to wait for the database.")] = 60.0,
) -> None:
    """Check the packs and bring the database up to this release."""
    from dispatcher.commands import processes

    services = processes.migrate(settings_or_exit(), wait=wait)
    typer.echo(f"The schema is up to date; the ledger is in {services.mode} mode.")


@app.command(rich_help_panel=PROCESSES)
def api(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Exactly this port, or none.")
    ] = None,
) -> None:
    """Serve the HTTP interface."""
    from dispatcher.commands import processes

    processes.api(settings_or_exit(), port=port)


@app.command(rich_help_panel=PROCESSES)
def worker(
    lanes: Annotated[
        str, typer.Option(help="Queues, the first served first: urgent normal bulk plan sweep.")
    ] = "urgent,normal,bulk,plan,sweep",
) -> None:
    """Plan, send and sweep."""
    from dispatcher.broker import QUEUES
    from dispatcher.commands import processes

    queues = [name.strip() for name in lanes.split(",") if name.strip()]
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        raise typer.BadParameter(f"known lanes: {', '.join(QUEUES)}", param_hint="--lanes")
    processes.worker(settings_or_exit(), queues)


@app.command(rich_help_panel=PROCESSES)
def beat() -> None:
    """Start the sweep once a second; one per installation."""
    from dispatcher.commands import processes

    processes.beat(settings_or_exit())


@app.command(rich_help_panel=PROCESSES)
def sandbox(
    host: Annotated[
        str | None,
        typer.Option(help="Listen here; whoever reaches it controls the sandbox."),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = None,
) -> None:
    """Simulate the providers."""
    from dispatcher.commands import processes

    processes.sandbox(settings_or_exit(), host=host, port=port)


@app.command(rich_help_panel=PROCESSES)
def up() -> None:
    """Everything on this machine, with servers of its own, until Ctrl-C."""
    from dispatcher.commands import local, people, places

    settings = settings_or_exit()
    own = local.embedded_settings(settings, settings.data_dir)
    with _until_told(), local.running(own) as here:
        folder = settings.data_dir
        typer.echo(f"Console     {here.url}/console/")
        first = people.first_link(here.services.ledger, here.url)
        if first is not None:
            typer.echo(f"{people.FIRST} {first}  (one use, 24 h)")
        typer.echo(f"API         {here.url}/docs")
        if own.mode == "sandbox":
            typer.echo(f"Sandbox     {here.settings.sandbox_url}/_sandbox/outbox")
        typer.echo(f"Keys        {folder / places.OPERATOR_KEY}  {folder / places.APPROVER_KEY}")
        typer.echo(f"Logs        {folder / 'log'}")
        typer.echo("Ctrl-C stops all of it.")
        threading.Event().wait()  # never set: Ctrl-C or SIGTERM ends it


@app.command(rich_help_panel=PROCESSES)
def demo(
    recipients: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Synthetic people to tell.")
    ] = 73_000,
    scenario: Annotated[str, typer.Option(help="att-2024 or spark-2014.")] = "att-2024",
    leave: Annotated[
        bool, typer.Option("--exit", help="Leave when it is complete; exit 1 after 600 s.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The last line of stdout is one object.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where it lives; its folder `demo` is made anew.")
    ] = None,
) -> None:
    """A real outage, told to 73,000 synthetic people over simulated providers."""
    from dispatcher.demo.screen import screen

    settings = settings_or_exit()
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": data_dir})
    shown = screen(to_stderr=as_json)
    shown.say(f"{scenario} to {recipients:,} synthetic recipients, over simulated providers")
    # The rest is heavy: something is on the screen before it is loaded.
    from dispatcher.demo.play import TooLate
    from dispatcher.demo.run import Wanted
    from dispatcher.demo.run import demo as play

    wanted = Wanted(recipients, scenario, leave=leave, as_json=as_json)
    with _until_told():
        try:
            good = play(settings, wanted, shown)
        except TooLate as error:
            shown.say(str(error))
            good = False
        finally:
            shown.close()
        raise typer.Exit(0 if good else 1)
    raise typer.Exit(130)


@app.command(rich_help_panel=OPERATORS)
def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Also connect to the providers' hosts (live mode).")
    ] = False,
) -> None:
    """What is set, missing and reachable, and how to mend it. Exit 1 if something is wrong."""
    from dispatcher.commands.doctor import examine, tell

    if not tell(list(examine(online=online)), typer.echo):
        raise typer.Exit(1)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="Who or what will hold it.")],
    scope: Annotated[list[str], typer.Option(help="A right; repeat for more.")],
    reach_limit: Annotated[
        int | None, typer.Option(min=1, help="Most people that one release of it may reach.")
    ] = None,
) -> None:
    """Make a key. It is shown once."""
    from dispatcher.commands import keys

    try:
        key_id, token = keys.create(
            settings_or_exit(), name=name, scopes=scope, reach_limit=reach_limit
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--scope") from None
    typer.echo(f"{name} ({key_id}); it cannot be shown again:", err=True)
    typer.echo(token)


@keys_app.command("list")
def keys_list() -> None:
    """All keys, without their secrets."""
    from rich.console import Console

    from dispatcher.commands import keys

    keys.show(settings_or_exit(), Console())


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The key's id or prefix.")],
) -> None:
    """Revoke a key; it is refused from now on."""
    from dispatcher.commands import keys

    if not keys.revoke(settings_or_exit(), key):
        typer.echo("There is no such key that is not revoked already.", err=True)
        raise typer.Exit(1)
    typer.echo("Revoked.")


@people_app.command("invite")
def people_invite(
    name: Annotated[str, typer.Option(help="As colleagues know them; they can change it.")],
    role: Annotated[str, typer.Option(help="viewer, author, approver or admin.")],
) -> None:
    """Make a link by which somebody joins the console. It is shown once."""
    from dispatcher.commands import people

    try:
        person, address = people.invite(settings_or_exit(), name=name, role=role)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(f"{person.name}, {person.role}; for one use within three days:", err=True)
    typer.echo(address)


@people_app.command("list")
def people_list() -> None:
    """Everybody who may sign in, was invited, or is disabled."""
    from rich.console import Console

    from dispatcher.commands import people

    people.show(settings_or_exit(), Console())


@people_app.command("disable")
def people_disable(login: Annotated[str, typer.Argument(help="Their login.")]) -> None:
    """Shut somebody out at once; their sessions end. Even the last admin."""
    from dispatcher.commands import people

    admins = people.disable(settings_or_exit(), login)
    if admins is None:
        typer.echo("Nobody signs in by that login.", err=True)
        raise typer.Exit(1)
    typer.echo("Disabled.")
    if not admins:
        typer.echo(people.UNTOLD, err=True)


@contextmanager
def _until_told() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block as a normal end; a second one ends the stopping."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)


def main() -> None:
    """Run the command line; known failures are told in a line, not by a traceback."""
    from dispatcher.commands.failures import told

    try:
        app()
    except Exception as error:
        lines = told(error)
        if not lines:
            raise
        for line in lines:
            sys.stderr.write(f"{line}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
