"""The operators' commands of `dispatcher`: options in, calls of the HTTP interface out.

Declares options and puts questions to the operator; `operators` does the work, and is
imported only when one of these commands runs.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.commands.drafts import Broken, DraftError, Said
from dispatcher.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.commands.client import Client

incidents_app = typer.Typer(no_args_is_help=True, help="Open, update and resolve incidents.")
recipients_app = typer.Typer(no_args_is_help=True, help="The directory of recipients.")

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KeyFile = Annotated[Path | None, typer.Option(help="The file of the key to use.")]
Body = Annotated[Path | None, typer.Option("--file", help="A JSON body; options go over it.")]
Phase = Annotated[str | None, typer.Option(help="investigating identified monitoring …")]
Facts = Annotated[
    list[str] | None, typer.Option("--fact", help="kind=JSON, such as 'restored={\"percent\":60}'.")
]
Texts = Annotated[list[str] | None, typer.Option("--text", help="slot.locale=words")]
Audiences = Annotated[
    list[str] | None, typer.Option("--audience", help="Only these; repeat for more.")
]
NextUpdate = Annotated[str | None, typer.Option(help="When the next update comes: +30m or a time.")]
Expires = Annotated[str | None, typer.Option(help="Nothing is sent after: +6h or a time.")]
Source = Annotated[str, typer.Option(help="Who knows these facts.")]
Release = Annotated[str, typer.Option(help="now, on_approval or draft.")]
Title = Annotated[str | None, typer.Option(help="Internal, never sent.")]
Summary = Annotated[str | None, typer.Option(help="Internal, never sent.")]
Severity = Annotated[str | None, typer.Option(help="minor, major or critical.")]
Services = Annotated[list[str] | None, typer.Option("--service", help="Repeat for more.")]
Regions = Annotated[list[str] | None, typer.Option("--region", help="Such as US-TX; none: all.")]
StartedAt = Annotated[str | None, typer.Option(help="now (default), -10m, or a time with offset.")]
Drill = Annotated[bool, typer.Option("--drill", help="Simulators only.")]
UpdateId = Annotated[str, typer.Argument(metavar="UPDATE", help="The update's id.")]
IncidentId = Annotated[str, typer.Argument(metavar="INCIDENT", help="INC-0042, or the id.")]


@contextmanager
def _api(key_file: Path | None = None) -> Iterator[tuple["Client", Any]]:
    """A client and a console; what an operator did wrong or declined ends the command."""
    from rich.console import Console

    from dispatcher.commands import operators
    from dispatcher.commands.client import connect

    try:
        with connect(load(), key_file=key_file) as api:
            # A pipe has no width of its own: wide enough that no id is cut.
            yield api, Console(width=None if sys.stdout.isatty() else 150)
    except DraftError as error:
        raise typer.BadParameter(str(error)) from None
    except operators.Declined as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _asker(yes: bool) -> "Callable[[str], bool]":
    def ask(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            typer.echo(f"{question} Without a terminal this needs --yes.", err=True)
            return False
        return typer.confirm(question)

    return ask


@incidents_app.command("open")
def incidents_open(
    title: Title = None,
    summary: Summary = None,
    severity: Severity = None,
    service: Services = None,
    region: Regions = None,
    started_at: StartedAt = None,
    drill: Drill = False,
    phase: Phase = None,
    fact: Facts = None,
    text: Texts = None,
    audience: Audiences = None,
    next_update: NextUpdate = None,
    expires: Expires = None,
    source: Source = "operator",
    file: Body = None,
    release: Release = "now",
    force: Annotated[bool, typer.Option("--force", help="Although a similar one is open.")] = False,
    yes: Yes = False,
    key_file: KeyFile = None,
) -> None:
    """Open an incident with its first update: shows reach, time and channels, and asks."""
    from dispatcher.commands import operators

    broken = Broken(
        title, summary, severity, service or (), region or (), started_at=started_at, drill=drill
    )
    said = Said(
        phase,
        fact or (),
        text or (),
        audience or (),
        next_update=next_update,
        expires=expires,
        source=source,
    )
    with _api(key_file) as (api, console):
        operators.open_incident(
            api,
            console,
            broken=broken,
            said=said,
            file=file,
            release=release,
            force=force,
            ask=_asker(yes),
        )


@incidents_app.command("update")
def incidents_update(
    incident: IncidentId,
    phase: Phase = None,
    fact: Facts = None,
    text: Texts = None,
    audience: Audiences = None,
    next_update: NextUpdate = None,
    expires: Expires = None,
    withdraw: Annotated[
        list[str] | None, typer.Option(help="The id of a fact to take back; repeat for more.")
    ] = None,
    source: Source = "operator",
    file: Body = None,
    release: Release = "now",
    yes: Yes = False,
    key_file: KeyFile = None,
) -> None:
    """Say something more about an incident."""
    from dispatcher.commands import operators

    said = Said(
        phase,
        fact or (),
        text or (),
        audience or (),
        next_update=next_update,
        expires=expires,
        withdraws=withdraw or (),
        source=source,
    )
    with _api(key_file) as (api, console):
        operators.add_update(
            api, console, incident, said=said, file=file, release=release, ask=_asker(yes)
        )


@incidents_app.command("resolve")
def incidents_resolve(
    incident: IncidentId,
    ended_at: Annotated[str, typer.Option(help="When it ended: now, -10m, or a time.")] = "now",
    fact: Facts = None,
    text: Texts = None,
    audience: Audiences = None,
    source: Source = "operator",
    file: Body = None,
    release: Release = "now",
    yes: Yes = False,
    key_file: KeyFile = None,
) -> None:
    """Say that it is over."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        ended = operators.ended(ended_at)
        said = Said("resolved", (ended, *(fact or ())), text or (), audience or (), source=source)
        operators.add_update(
            api, console, incident, said=said, file=file, release=release, ask=_asker(yes)
        )


@incidents_app.command("list")
def incidents_list(
    status: Annotated[str | None, typer.Option(help="open or resolved.")] = None,
    key_file: KeyFile = None,
) -> None:
    """Incidents, newest first."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        operators.list_incidents(api, console, status=status)


def preview(
    incident: Annotated[
        str | None, typer.Option(help="An incident that is open: previews its next update.")
    ] = None,
    title: Title = "preview",
    severity: Severity = None,
    service: Services = None,
    region: Regions = None,
    started_at: StartedAt = None,
    phase: Phase = None,
    fact: Facts = None,
    text: Texts = None,
    audience: Audiences = None,
    next_update: NextUpdate = None,
    expires: Expires = None,
    source: Source = "operator",
    file: Body = None,
    texts: Annotated[bool, typer.Option("--texts", help="Every message in full.")] = False,
    key_file: KeyFile = None,
) -> None:
    """Show what would be sent, to whom and by when; nothing is stored."""
    from dispatcher.commands import operators

    said = Said(
        phase,
        fact or (),
        text or (),
        audience or (),
        next_update=next_update,
        expires=expires,
        source=source,
    )
    with _api(key_file) as (api, console):
        if incident is not None:
            body = {"incident_id": incident, "update": operators.addition(said, file)}
        else:
            broken = Broken(
                title, None, severity, service or (), region or (), started_at=started_at
            )
            body = operators.opening(broken, said, file)
        operators.preview(api, console, body, texts=texts)


def approve(
    update: UpdateId,
    key_file: KeyFile = None,
    content_hash: Annotated[str | None, typer.Option(help="What you looked at.")] = None,
    audience: Audiences = None,
    yes: Yes = False,
) -> None:
    """Approve an update's content with another key than its author's, and release it."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        operators.approve(
            api,
            console,
            update,
            content_hash=content_hash,
            audiences=audience or (),
            ask=_asker(yes),
        )


def ledger(
    wanted: Annotated[
        str, typer.Argument(metavar="UPDATE", help="An update's id, or an incident: INC-0042.")
    ],
    follow: Annotated[bool, typer.Option("--follow", help="Bars until it is settled.")] = False,
    untold: Annotated[
        bool, typer.Option("--untold", help="Who has not been told, and why.")
    ] = False,
    key_file: KeyFile = None,
) -> None:
    """An update's balance: what was planned and what became of it. Exit 1 if not complete."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        complete = operators.ledger(api, console, wanted, follow=follow, untold=untold)
    if not complete:
        raise typer.Exit(1)


def stop(update: UpdateId, audience: Audiences = None, key_file: KeyFile = None) -> None:
    """Stop what is unsent, at once and without a question."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        operators.stop(api, console, update, audience or ())


def resume(update: UpdateId, audience: Audiences = None, key_file: KeyFile = None) -> None:
    """Go on where a stop left off."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        operators.resume(api, console, update, audience or ())


@recipients_app.command("import")
def recipients_import(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help=".csv or .ndjson")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also remove whom the file does not hold.")
    ] = False,
    key_file: KeyFile = None,
) -> None:
    """Take in a file of recipients; wrong lines are told by number. Exit 1 if there are any."""
    from dispatcher.commands import operators

    with _api(key_file) as (api, console):
        good = operators.import_recipients(api, console, file, replace=replace)
    if not good:
        raise typer.Exit(1)
