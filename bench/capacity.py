"""What a recipient costs, measured, and what that makes of a million and of a hundred.

`python -m bench.capacity measure` sends to 10,000 people a few times and writes what it cost into
`docs/capacity.json`; without `measure` it only computes the tables of `docs/scaling.md` from
that file anew, so that no figure there is typed by hand. Costs are CPU, which other load on the
machine bends less than it bends time. Must not know how a provider is spoken to.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import crowd, house, sink, table
from bench.crowd import Crowd
from bench.house import House
from bench.racing import ROOT
from bench.receipts import PUBLIC_URL, calling
from bench.report import between
from bench.waiting import until
from dispatcher.audiences import load

KEPT = ROOT / "docs" / "capacity.json"
DOCUMENT = ROOT / "docs" / "scaling.md"
PEOPLE = 10_000
SIZES = (73_000, 1_000_000, 10_000_000, 100_000_000)
CORES = (2, 16, 64)
BUSY = 0.8
"""Of the cores' time that a plan may count on."""
STATUSES = 3
"""Receipts for each message: sent, delivered, and one between."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one recipient: CPU in microseconds, of workers, API and PostgreSQL; and bytes."""

    plan_us: float
    sms_us: float
    email_us: float
    receipt_us: float
    row_bytes: float
    wal_bytes: float
    receipt_bytes: float
    machine: str


@dataclass(frozen=True, slots=True)
class Sender:
    """A kind of sender: `rate` in messages a second as its provider allows, `account` the most
    that all senders of one account may do together. `source` says where it stands."""

    name: str
    rate: float
    account: float | None
    source: str


_TWILIO = "https://github.com/twilio/ai"
SENDERS = (
    Sender("US long code", 1, 2_000, _TWILIO),
    Sender("US toll-free number", 3, 2_000, _TWILIO),
    Sender("10DLC, best trust score", 75, 2_000, _TWILIO),
    Sender("US short code", 100, 2_000, _TWILIO),
    Sender(
        "Twilio account, all senders", 2_000, 2_000, "https://www.twilio.com/docs/api/errors/63017"
    ),
    Sender(
        "FCM project",
        10_000,
        10_000,
        "https://firebase.google.com/docs/cloud-messaging/throttling-and-quotas",
    ),
    Sender("SendGrid, 1,000 to a request", 10_000_000, None, "https://github.com/sendgrid/docs"),
)


# Measuring


def measure(people: int, *, say: Callable[[str], None]) -> Costs:
    """Costs of `people` told by SMS, by SMS with receipts, and by mail. Raises `TooSlow`."""
    phones, mails = crowd.by_phone(people), crowd.by_mail(people)
    with sink.running() as taking, house.folder() as place:
        with house.living(place, taking, rate=0.001) as living:
            _take_in(living, phones, mails)
            say("planning")
            _planned(living, crowd.by_phone(10))  # caches warm: not measured
            before = living.worker_cpu_seconds()
            _planned(living, phones)
            plan = living.worker_cpu_seconds() - before
            living.sql("UPDATE release SET state = 'stopped' RETURNING 1")
        with house.living(place, taking, public_url=PUBLIC_URL) as living:
            for warm in (phones, mails):
                _sent(living, warm)
            say("SMS")
            rows, wal = _bytes(living, "delivery", "attempt"), _wal(living)
            sms = _sent(living, phones)
            rows, wal = _bytes(living, "delivery", "attempt") - rows, _wal(living) - wal
            say("email")
            mail = _sent(living, mails)
            say("SMS with receipts")
            held = _bytes(living, "receipt")
            told = _told(living, phones)
            held = _bytes(living, "receipt") - held
    each = 1e6 / people
    return Costs(
        plan_us=round(plan * each, 1),
        sms_us=round((sms - plan) * each, 1),
        email_us=round((mail - plan) * each, 1),
        receipt_us=round((told - sms) * each / STATUSES, 1),
        row_bytes=round(rows / people),
        wal_bytes=round(wal / people),
        receipt_bytes=round(held / people / STATUSES),
        machine=table.machine(),
    )


def _take_in(living: House, *crowds: Crowd) -> None:
    for each in crowds:
        crowd.fill(living.services.ledger, living.services.sealer, each)


def _planned(living: House, told: Crowd) -> None:
    update = living.open(told).update
    until(
        lambda: sum(living.counted(update).values()) >= len(told.addresses),
        within=120,
        what="planning",
        every=0.05,
    )


def _sent(living: House, told: Crowd) -> float:
    """CPU seconds of one fan-out, planning included."""
    before = _cpu(living)
    people = len(told.addresses)
    update = living.open(told).update
    living.settled(update, rows=people, within=60 + people / 300)
    return _cpu(living) - before


def _told(living: House, told: Crowd) -> float:
    """CPU seconds of one fan-out whose every message has its receipts, to the last of them."""
    people = len(told.addresses)
    living.sink.clear()
    with calling(living, people, None):
        before = _cpu(living)
        update = living.open(told).update
        until(
            lambda: living.counted(update)["delivered"] >= people,
            within=120 + people / 200,
            what="the last receipt",
            every=0.25,
        )
        return _cpu(living) - before


def _cpu(living: House) -> float:
    """CPU of workers, PostgreSQL and API so far."""
    stat = Path(f"/proc/{living.stack.pids()['api']}/stat").read_text()
    fields = stat.rpartition(") ")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return living.worker_cpu_seconds() + own


def _bytes(living: House, *prefixes: str) -> int:
    found = living.sql(
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
        " WHERE relkind = 'r' AND split_part(relname, '_', 1) = ANY(%s)",
        list(prefixes),
    )
    return int(found[0][0])


def _wal(living: House) -> int:
    return int(living.sql("SELECT (pg_current_wal_lsn() - '0/0')::bigint")[0][0])


# Computing


def tables(costs: Costs) -> Iterator[str]:
    """The tables of the document, as Markdown, in two parts: what it costs, whom it reaches."""
    yield f"{_costs(costs)}\n\n{_sizes(costs)}"
    yield f"{_senders()}\n\n{_prices()}"


def seconds(costs: Costs, people: int, *, cores: int) -> float:
    """From release to the last acceptance of as many SMS, if nothing but CPU bounds it. Receipts
    come in their own time, and are not in it."""
    return people * (costs.plan_us + costs.sms_us) / 1e6 / (cores * BUSY)


def bytes_of(costs: Costs, people: int) -> float:
    """What as many deliveries leave on disk, indexes included, with receipts not yet forgotten."""
    return people * (costs.row_bytes + STATUSES * costs.receipt_bytes)


def senders_for(sender: Sender, people: int, *, within: float) -> int | None:
    """How many senders reach as many people in so many seconds; None if the account cannot."""
    needed = people / within
    if sender.account is not None and needed > sender.account:
        return None
    return math.ceil(needed / sender.rate)


def _costs(costs: Costs) -> str:
    lines = [
        "| of one recipient | cost |",
        "|---|---|",
        f"| planning | {costs.plan_us:,.0f} µs CPU |",
        f"| one SMS: claim, build, send, record | {costs.sms_us:,.0f} µs CPU |",
        f"| one email, up to 1,000 in a request | {costs.email_us:,.0f} µs CPU |",
        f"| one receipt: verify, keep, apply | {costs.receipt_us:,.0f} µs CPU |",
        f"| rows of delivery and attempt, indexes included | {costs.row_bytes:,.0f} bytes |",
        f"| one receipt, kept for 30 days | {costs.receipt_bytes:,.0f} bytes |",
        f"| PostgreSQL's log (WAL) | {costs.wal_bytes:,.0f} bytes |",
    ]
    return "\n".join([*lines, "", f"On {costs.machine}, all processes on the same cores."])


def _sizes(costs: Costs) -> str:
    spans = " | ".join(f"sent by {cores} cores in" for cores in CORES)
    lines = [
        f"| people | CPU of sending | CPU of {STATUSES} receipts each | {spans} | on disk | WAL |",
        "|---" * (len(CORES) + 5) + "|",
    ]
    for people in SIZES:
        cells = [
            f"{people:,}",
            span(seconds(costs, people, cores=1) * BUSY),
            span(people * STATUSES * costs.receipt_us / 1e6),
            *(span(seconds(costs, people, cores=cores)) for cores in CORES),
            f"{bytes_of(costs, people) / 1e9:,.1f} GB",
            f"{people * costs.wal_bytes / 1e9:,.1f} GB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _senders() -> str:
    head = " | ".join(f"{people:,}" for people in SIZES)
    lines = [
        f"| sender | a second | {head} | senders for {SIZES[1]:,} in an hour |",
        "|---" * (len(SIZES) + 3) + "|",
    ]
    for sender in SENDERS:
        spans = " | ".join(span(people / sender.rate) for people in SIZES)
        needed = senders_for(sender, SIZES[1], within=3_600)
        lines.append(
            f"| [{sender.name}]({sender.source}) | {sender.rate:,.0f} | {spans}"
            f" | {needed if needed is not None else 'not on one account'} |"
        )
    return "\n".join(lines)


def _prices() -> str:
    organisation = load(ROOT / "templates").organisation
    lines = [
        f"| list price, {organisation.currency} | one | {SIZES[1]:,} people | {SIZES[-1]:,} people |",
        "|---|---|---|---|",
    ]
    for channel in ("sms", "email", "push"):
        price = organisation.senders[channel]["default"].price
        spent = [f"{price * people:,.0f}" for people in (SIZES[1], SIZES[-1])]
        lines.append(f"| {channel} | {price:g} | {' | '.join(spent)} |")
    return "\n".join(lines)


def span(seconds: float) -> str:
    """A time in the unit one would say it in."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def kept(path: Path = KEPT) -> Costs:
    found: Mapping[str, float | str] = json.loads(path.read_text(encoding="utf-8"))
    return Costs(**found)  # type: ignore[arg-type]  # written by `main` from a Costs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("act", nargs="?", choices=("measure",))
    parser.add_argument("--people", type=int, default=PEOPLE)
    options = parser.parse_args()
    if options.act == "measure":
        costs = measure(options.people, say=lambda step: print(step, file=sys.stderr, flush=True))
        KEPT.write_text(json.dumps(asdict(costs), indent=2, ensure_ascii=False) + "\n")
    written = DOCUMENT.read_text(encoding="utf-8")
    for name, text in zip(("capacity", "senders"), tables(kept()), strict=True):
        written = between(written, name, text)
    DOCUMENT.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
