"""What the API answers, as tables for a person. Knows words and columns, and no call."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

STATES = (
    *("pending", "sending", "accepted", "delivered", "unknown", "failed"),
    *("skipped", "spared", "superseded", "expired", "stopped"),
)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def preview(console: Console, shown: Mapping[str, Any], *, texts: bool) -> int:
    """Who is reached how and by when; returns how many people. Errors are marked."""
    reach = Table(title="Reach")
    for name in ("audience", "people", "reached", "channels"):
        reach.add_column(name, justify="right" if name in ("people", "reached") else "left")
    for audience, found in shown["reach"].items():
        channels = "  ".join(f"{name} {count:,}" for name, count in found["by_channel"].items())
        reach.add_row(audience, f"{found['people']:,}", f"{found['reached']:,}", channels)
    console.print(reach)
    messages = Table(title="Messages")
    for name in ("audience", "channel", "locale", "to", "size", "cost", "gone within", "problems"):
        number = name in ("to", "size", "cost", "gone within")
        messages.add_column(name, justify="right" if number else "left")
    for message in shown["messages"]:
        messages.add_row(
            message["audience"],
            message["channel"],
            message["locale"],
            f"{message['recipients']:,}",
            str(message["size"]),
            f"{message['cost']:,.2f}",
            duration(message["eta_seconds"]),
            "\n".join(f"{p['severity']}: {p['message']}" for p in message["problems"]),
        )
    console.print(messages)
    for reason, people in shown["not_reachable"].items():
        console.print(f"Not reached: {people:,} ({reason})")
    if texts:
        for message in shown["messages"]:
            console.rule(f"{message['audience']} · {message['channel']} · {message['locale']}")
            for part, text in message["parts"].items():
                console.print(f"[dim]{part}[/dim]")
                console.print(text, markup=False, highlight=False)
    return sum(found["reached"] for found in shown["reach"].values())


def errors(shown: Mapping[str, Any]) -> list[str]:
    """The problems of a preview that would refuse submission."""
    return [
        f"{problem['where']} {problem['part']}: {problem['message']}"
        for message in shown["messages"]
        for problem in message["problems"]
        if problem["severity"] == "error"
    ]


def made(console: Console, answer: Mapping[str, Any]) -> None:
    """What became of an update that was just made."""
    update = answer["update"]
    console.print(f"{answer['reference']}  update {update['id']}", highlight=False)
    if update["content_hash"]:
        console.print(f"content  {update['content_hash']}", highlight=False)
    console.print(f"released {', '.join(update['released']) or 'nobody yet'}")
    if update["held"]:
        console.print(f"held     {', '.join(update['held'])}: waits for another key's approval")
        console.print(f"         dispatcher approve {update['id']} --key-file FILE")
    console.print(f"follow   dispatcher ledger {update['id']} --follow", highlight=False)


def progress(console: Console, numbers: Mapping[str, Any]) -> None:
    """An update's balance: states down, channels across, then audiences."""
    console.print(
        f"update {numbers['update_id']}  {numbers['phase']}  {numbers['state']}"
        f"  mode {numbers['mode']}",
        highlight=False,
    )
    for title, groups in (
        ("By channel", numbers["by_channel"]),
        ("By audience", numbers["by_audience"]),
    ):
        console.print(_grid(title, groups, numbers))
    words = [
        word if numbers[word] else f"not {word}" for word in ("balanced", "settled", "complete")
    ]
    console.print(", ".join(words))
    if numbers["first_accepted_at"]:
        console.print(
            f"accepted from {numbers['first_accepted_at']} to {numbers['last_accepted_at']}"
        )


def _grid(title: str, groups: Mapping[str, Mapping[str, int]], numbers: Mapping[str, Any]) -> Table:
    """Groups down, planned and every state that occurs across, with their sum."""
    occurring = [state for state in STATES if numbers["by_state"][state]]
    table = Table(title=title, show_footer=True)
    table.add_column(title.split()[-1], footer="all")
    table.add_column("planned", justify="right", footer=f"{numbers['planned']:,}")
    for state in occurring:
        table.add_column(state, justify="right", footer=f"{numbers['by_state'][state]:,}")
    for name, counts in groups.items():
        cells = [f"{counts[state]:,}" if counts[state] else "·" for state in occurring]
        table.add_row(name, f"{counts['planned']:,}", *cells)
    return table


def incident(console: Console, whole: Mapping[str, Any]) -> None:
    """An incident and its updates."""
    console.print(
        f"{whole['reference']}  {whole['severity']}  {whole['status']}  {whole['title']}",
        highlight=False,
    )
    table = Table()
    table.add_column("update", no_wrap=True)
    for name in ("phase", "made", "audiences"):
        table.add_column(name)
    for update in whole["updates"]:
        states: dict[str, list[str]] = {}
        for release in update["audiences"]:
            states.setdefault(release["state"], []).append(release["audience"])
        told = "\n".join(f"{state}: {', '.join(names)}" for state, names in states.items())
        table.add_row(update["id"], update["phase"], update["created_at"][:19], told)
    console.print(table)


def incidents(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """A list of incidents."""
    table = Table("reference", "severity", "status", "started", "title")
    for one in found:
        table.add_row(
            one["reference"], one["severity"], one["status"], one["started_at"][:16], one["title"]
        )
    console.print(table)


def untold(console: Console, rows: Sequence[Mapping[str, Any]], *, more: bool) -> None:
    """People who have not been told, with the reason; never an address."""
    table = Table("recipient", "audience", "channel", "state", "reason", "hint")
    for row in rows:
        table.add_row(
            row["recipient"] or "",
            row["audience"],
            row["channel"],
            row["state"],
            row["reason"],
            row["hint"] or "",
        )
    console.print(table)
    if more:
        console.print("There are more: GET /v1/updates/…/deliveries?told=no pages through all.")


def imported(console: Console, answer: Mapping[str, Any]) -> None:
    """What an import did, and what was wrong with which line."""
    counts = ("lines", "added", "changed", "unchanged", "removed", "refused")
    console.print("  ".join(f"{name} {answer[name]:,}" for name in counts))
    if answer["withheld"]:
        console.print(f"Nobody was removed: {answer['withheld']}")
    for error in answer["errors"][:50]:
        where = f" {error['column']}" if error["column"] else ""
        console.print(
            f"line {error['line']}{where}: {error['message']}", markup=False, highlight=False
        )
    if answer["error_count"] > 50:
        console.print(f"and {answer['error_count'] - 50:,} more")
