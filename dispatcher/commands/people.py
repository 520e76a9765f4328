"""People who sign in to the console, as the machine's owner invites, lists and shuts them out.

For the first admin, and for a machine on which nobody can sign in any more: it works on the
ledger itself. A one-time link is told once, to whoever runs the command, and never logged.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from dispatcher import people, wiring
from dispatcher.acts import Invalid
from dispatcher.commands.local import OWNER
from dispatcher.commands.places import URL_FILE, written
from dispatcher.ledger import people as rows
from dispatcher.ledger.connection import Ledger, LedgerAway
from dispatcher.ledger.people import PersonRow
from dispatcher.people import Link
from dispatcher.security.rights import Role
from dispatcher.settings import Settings

FIRST = "First admin"
"""How the line begins that holds the link for whoever signs in first."""
UNTOLD = (
    "Nobody can sign in to the console yet: `dispatcher people invite --role admin --name NAME`"
    " prints a link."
)
"""Said instead where output is kept, as in a log file: a link would be kept with it."""


@contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(wiring.database_url(settings), size=1)
    try:
        ledger.check_schema()
        yield ledger
    finally:
        ledger.close()


def invite(settings: Settings, *, name: str, role: str) -> tuple[PersonRow, str]:
    """Somebody new, and the address by which they join. Raises `ValueError` in words."""
    if role not in list(Role):
        raise ValueError(f"unknown role {role!r}; known: {', '.join(Role)}")
    with _ledger(settings) as ledger, ledger.transaction() as work:
        try:
            link = people.invite(work.conn, name=name, role=Role(role), by=OWNER)
        except Invalid as error:
            raise ValueError(f"the name {error.errors[0][1]}") from None
    return link.person, address(settings, link)


def address(settings: Settings, link: Link) -> str:
    """Where the link leads: below the API's address, as far as this machine knows it."""
    url = settings.api_url or written(settings.data_dir / URL_FILE)
    return f"{url.rstrip('/')}{link.path}" if url else f"{link.path} (below the API's address)"


def show(settings: Settings, console: Console) -> None:
    """Everybody as a table."""
    with _ledger(settings) as ledger, ledger.read() as conn:
        found = rows.listed(conn)
    table = Table()
    for name in ("name", "login", "role", "standing", "last here (UTC)"):
        table.add_column(name, no_wrap=name == "login")
    for each in found:
        person = each.person
        table.add_row(
            person.name,
            person.login or "",
            person.role.value,
            _standing(each),
            f"{each.seen_at:%Y-%m-%d %H:%M}" if each.seen_at else "",
        )
    console.print(table)


def _standing(each: rows.Listed) -> str:
    if each.person.disabled_at is not None:
        return "disabled"
    if each.person.login is None:
        return "invited" if each.link_until else "invited, link too old"
    return "waits after failed tries" if each.locked_until else "may sign in"


def disable(settings: Settings, login: str) -> bool | None:
    """Shut somebody out at once; None if there is nobody by this login, else whether an admin
    is left who can sign in."""
    with _ledger(settings) as ledger, ledger.transaction() as work:
        person = rows.by_login(work.conn, people.spelled_login(login))
        if person is None:
            return None
        people.disable(work.conn, person.id, by=OWNER, even_last=True)
        return rows.anybody(work.conn)


def first_link(ledger: Ledger, url: str) -> str | None:
    """Where the first admin joins, while there is none; each call makes the one before void.

    A database that is away leaves it unmade: whoever starts again gets another.
    """
    try:
        with ledger.transaction() as work:
            link = people.first_link(work.conn)
    except LedgerAway:
        return None
    return None if link is None else f"{url.rstrip('/')}{link.path}"


def greet(settings: Settings, url: str, say: Callable[[str], object], *, kept: bool) -> None:
    """At the start of an API: how the first admin gets in, if there is none. `kept` says that
    what is said may end up in a file."""
    ledger = Ledger(wiring.database_url(settings), size=1)
    try:
        if not kept:
            link = first_link(ledger, url)
            if link is not None:
                say(f"{FIRST} (one use, 24 h)  {link}")
            return
        with ledger.read() as conn:
            anybody = rows.anybody(conn)
        if not anybody:
            say(UNTOLD)
    except LedgerAway:
        return
    finally:
        ledger.close()
