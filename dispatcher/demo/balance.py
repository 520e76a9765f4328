"""How the demo ends: the balance sheet, what lost and doubled are made of, where to look next.

Knows tables and words. Must not change or count anything.
"""

import csv
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dispatcher.commands.client import ApiError, Client
from dispatcher.commands.local import Local
from dispatcher.commands.people import first_link
from dispatcher.commands.places import OPERATOR_KEY
from dispatcher.demo.audit import Findings
from dispatcher.demo.play import Told

ALWAYS = ("accepted", "failed", "unknown")
COLUMNS = ("accepted", "skipped", "spared", "superseded", "failed", "unknown")


def show(
    console: Console, told: Sequence[Told], findings: Findings, result: Mapping[str, Any]
) -> None:
    """The balance sheet per update, and the audit's two numbers with what they are made of."""
    table = Table(title=f"Balance of {told[0].reference}" if told else "Balance", box=SIMPLE_HEAD)
    table.add_column("update", no_wrap=True)
    shown = [
        name
        for name in COLUMNS
        if name in ALWAYS or any(update.progress["by_state"][name] for update in told)
    ]
    for name in ("planned", *shown, "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for update in told:
        states = update.progress["by_state"]
        accepted = states["accepted"] + states["delivered"]
        table.add_row(
            f"{update.number} {update.phase}",
            f"{update.progress['planned']:,}",
            *(_shown(accepted if name == "accepted" else states[name]) for name in shown),
            f"{update.seconds:.1f}",
            _verdict(update.progress),
        )
    console.print(table)
    _show_audit(console, findings, result)


def _shown(count: int) -> str:
    return f"{count:,}" if count else "·"


def _verdict(progress: Mapping[str, Any]) -> str:
    if progress["complete"]:
        return "complete"
    missing = [word for word in ("balanced", "settled") if not progress[word]]
    return f"not {' and not '.join(missing)}"


def _show_audit(console: Console, findings: Findings, result: Mapping[str, Any]) -> None:
    counted = "  ".join(f"{name} {count:,}" for name, count in result["channels"].items())
    lines = (
        f"Counted by who received them:  {counted}",
        f"Lost        {findings.lost:,}  = {findings.not_in_outbox:,} accepted rows (of"
        f" {findings.accepted:,}) that no outbox holds + {findings.at_another_address:,} sent to"
        f" another address + {findings.without_row:,} people (of {findings.expected:,} due by a"
        " plain pass over the file) without a row",
        f"Duplicates  {findings.duplicates:,}  = {findings.held:,} messages held -"
        f" {findings.covered:,} accounted for by a delivery ({findings.in_doubt:,} in doubt)",
        f"Time        {result['seconds']} s in all; from the first release to the last"
        f" acceptance {result['seconds_to_last_accept']} s",
    )
    for line in (*lines, *(f"  {example}" for example in findings.examples)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_next(console: Console, here: Local, operator: Client, told: Sequence[Told]) -> None:
    """Where to look: the console, pages, a call by curl, one person's inbox."""
    key = here.settings.data_dir / OPERATOR_KEY
    first = first_link(here.services.ledger, here.url)
    lines = [
        f"The console         {here.url}/console/",
        *([f"Join as its admin   {first}  (one use, 24 h)"] if first is not None else []),
        f"API and its calls   {here.url}/docs",
        f"Providers' outbox   {here.settings.sandbox_url}/_sandbox/outbox?limit=20",
        *(f"One person's inbox  {url}" for url in _inbox(here, operator)),
        'The ledger by curl  curl -H "Authorization: Bearer $(cat '
        f'{key})" {here.url}/v1/updates/{told[-1].update_id}/progress',
        f"The same here       DISPATCHER_DATA_DIR={here.settings.data_dir} dispatcher ledger"
        f" {told[-1].reference}",
        f"Logs                {here.settings.data_dir / 'log'}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _inbox(here: Local, operator: Client) -> list[str]:
    """The inbox page of somebody who has messages there, opened by a token of an hour."""
    with (here.settings.data_dir.with_name("demo-recipients.csv")).open(encoding="utf-8") as file:
        # A phone's own token comes before the inbox: who has none gets everything there.
        readers = (row for row in csv.DictReader(file) if row["inbox"] and not row["fcm_token"])
        try:
            for row in islice(readers, 20):
                token = operator.post("/v1/inbox/tokens", {"recipient": row["id"]})["token"]
                if operator.get("/v1/inbox", token=token)["messages"]:
                    return [f"{here.url}/inbox?token={token}"]
        except ApiError:
            return []
    return []
