"""Whether a run lost or doubled anything: the simulators' outboxes against the ledger's rows.

Three witnesses: whom the run was for (`crowd`), what the simulators hold, and what the ledger
says of each row. Numbers come from the outboxes; the ledger's own counters are not asked.

lost        people whom no simulator holds a message for. Where providers can be asked, a row
            that stands as unknown at one that cannot (mail) is not lost, it is listed.
duplicates  messages beyond the first at one address. Of pushes with one collapse key the phone
            shows one, so they count as one.
unknown     rows listed as unknown whose message no simulator holds;
taken       rows listed as unknown whose message a simulator holds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.crowd import PUBLIC_ACCOUNT, Place, crowd, places
from tests.chaos.site import LISTED, Site
from tests.stories.house import HAVE_IT

SIMULATORS = {"sms": "twilio", "email": "sendgrid", "push": "fcm", "social": "x"}
ASKABLE = (*LISTED, "fcm")
"""Of these a row in doubt comes to an end: they can be asked, or show a message once."""
_SHOWN = 8


class Row(NamedTuple):
    """A delivery as the ledger has it."""

    id: str
    recipient: str | None
    channel: str
    state: str
    reason: str
    ref: str | None
    attempts: int


@dataclass(slots=True)
class Verdict:
    """A run's sums, and in `wrong` whatever a good run has none of, with the rows' history."""

    planned: int = 0
    held: int = 0
    lost: int = 0
    duplicates: int = 0
    unknown: int = 0
    taken: int = 0
    wrong: list[str] = field(default_factory=list)


def judge(site: Site, update: str) -> Verdict:
    """The verdict on an update that has settled, all of whose people have `places`."""
    rows = _rows(site, update)
    outbox: dict[Place, list[dict[str, Any]]] = defaultdict(list)
    for entry in site.house.sandbox.outbox():
        address = PUBLIC_ACCOUNT if entry["provider"] == "x" else entry["address"]
        outbox[Place(entry["provider"], address)].append(entry)
    wanted = set(places(site.size))
    by_place = _by_place(site, rows)
    found = Verdict(planned=len(rows))
    for place in sorted(outbox.keys() - wanted):
        found.wrong.append(f"a message at an address of nobody, {place.provider}")
    for place in sorted(wanted):
        row, entries = by_place.get(place), outbox[place]
        copies = len({(e["key"] if place.provider == "fcm" else e["seq"]) for e in entries})
        found.held += copies
        found.duplicates += max(0, copies - 1)
        doubt = row is not None and row.state == "unknown"
        found.taken += doubt and copies > 0
        found.unknown += doubt and copies == 0
        lost = copies == 0 and (site.blind or not doubt or place.provider in ASKABLE)
        found.lost += lost
        fault = _wrong(site, place, row, entries, copies=copies)
        if fault:
            found.wrong.append(f"{fault}: {_history(site, update, place, row, entries)}")
    if len(by_place) != len(rows):
        found.wrong.append(f"{len(rows)} rows for {len(by_place)} places")
    return found


def _wrong(
    site: Site,
    place: Place,
    row: Row | None,
    entries: Sequence[dict[str, Any]],
    *,
    copies: int,
) -> str:
    if row is None:
        return "no row"
    if copies > 1:
        return f"{copies} messages at one address"
    if row.state in HAVE_IT:
        refs = {e["ref"] for e in entries}
        return "" if row.ref in refs else "accepted, and in no outbox under its ref"
    if row.state == "unknown":
        if site.blind or place.provider not in ASKABLE:
            return ""
        return "left unknown, though the provider can be asked"
    return f"ended as {row.state}"


def _rows(site: Site, update: str) -> list[Row]:
    found = site.house.sql(
        "SELECT d.id::text, r.ref, d.channel, d.state, d.reason, d.ref, d.attempts FROM delivery d"
        " LEFT JOIN recipient r ON r.id = d.recipient_id WHERE d.update_id = %s",
        update,
    )
    return [Row(*each) for each in found]


def _by_place(site: Site, rows: Sequence[Row]) -> dict[Place, Row]:
    """Rows by where their message has to arrive: addresses are the run's own, not the ledger's."""
    people = {each.id: each for each in crowd(site.size)}
    found = {}
    for row in rows:
        person = people.get(row.recipient or "")
        if row.channel == "social":
            address = PUBLIC_ACCOUNT
        elif person is None:
            address = f"nobody {row.id}"
        else:
            address = {"sms": person.phone, "email": person.email, "push": person.fcm_token}[
                row.channel
            ]
        found[Place(SIMULATORS[row.channel], address)] = row
    return found


def _history(
    site: Site, update: str, place: Place, row: Row | None, entries: Sequence[dict[str, Any]]
) -> str:
    """What is on record of one row: its tries, its batch, and what the simulator took and when."""
    taken = [(e["at"], e["ref"], e["key"]) for e in entries]
    if row is None:
        return f"{place.provider}, outbox {taken}"
    tries = site.house.sql(
        "SELECT number, epoch, adapter, outcome, reason, detail, ref, late, at::text FROM attempt"
        " WHERE update_id = %s AND delivery_id = %s ORDER BY at",
        update,
        row.id,
    )
    batch = site.house.sql(
        "SELECT b.id, b.adapter, b.lease_epoch, b.lease_owner, d.epoch, d.changed_at::text"
        " FROM delivery d JOIN batch b ON b.id = d.batch_id"
        " WHERE d.update_id = %s AND d.id = %s",
        update,
        row.id,
    )
    return f"{row}, tries {tries}, batch {batch}, outbox {taken}"


def shown(wrong: Sequence[str]) -> str:
    """The first few wrongs of each sort, and how many there are."""
    sorts: dict[str, list[str]] = defaultdict(list)
    for each in wrong:
        sorts[each.partition(":")[0]].append(each)
    lines = []
    for sort, found in sorts.items():
        lines.append(f"{len(found)} x {sort}")
        lines += [f"    {each}" for each in found[:_SHOWN]]
    return "\n".join(lines)
