"""What an operator does by command: each is calls of the HTTP interface, and what they answer.

Knows the order of calls and when to ask. Must not know the ledger: a key is needed here
as by curl, and the audit log shows the same.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dispatcher.commands import tables
from dispatcher.commands.client import ApiError, Client
from dispatcher.commands.drafts import Broken, Said, from_file, moment

Ask = Callable[[str], bool]
"""Puts a question to the operator; True is yes."""

FOLLOW_EVERY = 0.5
BLOCK = 64 * 1024
FORMS = {
    ".csv": "text/csv",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
}


class Declined(Exception):
    """The operator did not say yes; nothing was sent."""


def open_incident(
    api: Client,
    console: Console,
    *,
    broken: Broken,
    said: Said,
    file: Path | None,
    release: str,
    force: bool,
    ask: Ask,
) -> None:
    """Preview, ask, open. Raises `DraftError`, `ApiError`, `Declined`."""
    body = opening(broken, said, file)
    _agree(api, console, body, release=release, ask=ask)
    key = str(uuid.uuid4())
    made = api.post("/v1/incidents", {**body, "release": release, "force": force}, key=key)
    tables.made(console, made)


def opening(broken: Broken, said: Said, file: Path | None) -> dict[str, Any]:
    """The body that opens an incident. Raises `DraftError`."""
    stands = from_file(file)
    update = said.update(stands.get("update", {}))
    return {**broken.incident(stands), "update": {"phase": "investigating", **update}}


def add_update(
    api: Client,
    console: Console,
    incident: str,
    *,
    said: Said,
    file: Path | None,
    release: str,
    ask: Ask,
) -> None:
    """Preview, ask, add an update. Raises `DraftError`, `ApiError`, `Declined`."""
    update = addition(said, file)
    _agree(api, console, {"incident_id": incident, "update": update}, release=release, ask=ask)
    body = {"update": update, "release": release}
    made = api.post(f"/v1/incidents/{incident}/updates", body, key=str(uuid.uuid4()))
    tables.made(console, made)


def addition(said: Said, file: Path | None) -> dict[str, Any]:
    """An update from a file that holds one, or a body with one, and options over it."""
    stands = from_file(file)
    return said.update(stands.get("update", stands))


def ended(written: str) -> str:
    """The fact that it is over, as `--fact` takes it. Raises `DraftError`."""
    return f'ended={{"at":"{moment(written, "--ended-at")}"}}'


def list_incidents(api: Client, console: Console, *, status: str | None) -> None:
    """The newest incidents. Raises `ApiError`."""
    page = api.get("/v1/incidents", **({"status": status} if status else {}))
    tables.incidents(console, page["incidents"])


def preview(api: Client, console: Console, body: dict[str, Any], *, texts: bool) -> None:
    """Show what would be sent; nothing is stored. Raises `ApiError`."""
    shown = api.post("/v1/previews", body)
    tables.preview(console, shown, texts=texts)
    console.print(f"content {shown['content_hash']}", highlight=False)


def _agree(api: Client, console: Console, body: dict[str, Any], *, release: str, ask: Ask) -> None:
    """Show reach, time and channels, and ask. Raises `Declined`, `ApiError`."""
    shown = api.post("/v1/previews", body)
    people = tables.preview(console, shown, texts=False)
    wrong = tables.errors(shown)
    if wrong:
        reasons = [{"field": "update", "reason": line} for line in wrong]
        raise ApiError("The messages have errors; nothing was sent.", {"errors": reasons})
    question = {
        "now": f"Send this now, to at most {people:,} people?",
        "on_approval": f"Submit this for approval, to {people:,} people?",
    }.get(release, "Store this as a draft?")
    if not ask(question):
        raise Declined("Nothing was sent.")


def approve(
    api: Client,
    console: Console,
    update: str,
    *,
    content_hash: str | None,
    audiences: Sequence[str],
    ask: Ask,
) -> None:
    """Approve the content as it stands and release it. Raises `ApiError`, `Declined`."""
    numbers = api.get(f"/v1/updates/{update}/progress")
    whole = api.get(f"/v1/incidents/{numbers['incident_id']}")
    stands = next(one for one in whole["updates"] if one["id"] == numbers["update_id"])
    waiting = [one["audience"] for one in stands["audiences"] if one["state"] == "submitted"]
    chosen = list(audiences) or waiting
    named = content_hash or stands["content_hash"]
    console.print(f"{whole['reference']} {stands['phase']}: {', '.join(chosen) or 'nobody'}")
    console.print(f"content {named}", highlight=False)
    if not ask("Approve exactly this content and release it?"):
        raise Declined("Nothing was approved.")
    body = {"content_hash": named, **({"audiences": chosen} if chosen else {})}
    answer = api.post(f"/v1/updates/{update}/approve", body, key=str(uuid.uuid4()))
    if not answer["released"]:
        # Written as a draft: approval alone does not let it go.
        answer = api.post(f"/v1/updates/{update}/release", body, key=str(uuid.uuid4()))
    console.print(f"released {', '.join(answer['released'])}")


def stop(api: Client, console: Console, update: str, audiences: Sequence[str]) -> None:
    """Stop what is unsent. No question: it must be quick. Raises `ApiError`."""
    body = {"audiences": list(audiences)} if audiences else {}
    answer = api.post(f"/v1/updates/{update}/stop", body)
    console.print(
        f"Stopped {', '.join(answer['stopped'])}: {answer['saved']:,} will not be sent,"
        f" {answer['left']:,} had left."
    )


def resume(api: Client, console: Console, update: str, audiences: Sequence[str]) -> None:
    """Go on where a stop left off. Raises `ApiError`."""
    body = {"audiences": list(audiences)} if audiences else {}
    answer = api.post(f"/v1/updates/{update}/resume", body)
    console.print(f"Goes on: {', '.join(answer['resumed'])}")


def ledger(api: Client, console: Console, wanted: str, *, follow: bool, untold: bool) -> bool:
    """Show an update's balance, or an incident's updates; returns whether all is complete.

    `follow` shows bars until nothing moves; `untold` lists who was not told. Raises `ApiError`.
    """
    ids = [wanted]
    if wanted.upper().startswith("INC-"):
        whole = api.get(f"/v1/incidents/{wanted}")
        tables.incident(console, whole)
        ids = [update["id"] for update in whole["updates"]]
    complete = True
    for update in ids:
        if follow:
            _follow(api, console, update)
        numbers = api.get(f"/v1/updates/{update}/progress")
        tables.progress(console, numbers)
        complete = complete and numbers["complete"]
        if untold:
            page = api.get(f"/v1/updates/{update}/deliveries", told="no", limit=200)
            tables.untold(console, page["deliveries"], more=page["next"] is not None)
    return complete


def _follow(api: Client, console: Console, update: str) -> None:
    """A bar per channel until the update is settled or waits for a person."""
    pause = threading.Event()  # never set: paces the asking
    with Progress(
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        tasks: dict[str, Any] = {}
        while True:
            numbers = api.get(f"/v1/updates/{update}/progress")
            for channel, counts in numbers["by_channel"].items():
                if channel not in tasks:
                    tasks[channel] = bars.add_task(channel)
                moving = counts["pending"] + counts["sending"]
                bars.update(
                    tasks[channel],
                    total=counts["planned"],
                    completed=counts["planned"] - moving,
                )
            if numbers["settled"] or numbers["state"] not in ("planning", "sending", "released"):
                return
            pause.wait(FOLLOW_EVERY)


def import_recipients(api: Client, console: Console, file: Path, *, replace: bool) -> bool:
    """Send a file of recipients; returns whether every line was good. Raises `ApiError`."""
    content_type = FORMS.get(file.suffix.lower())
    if content_type is None:
        raise ApiError(f"A recipients' file ends in {', '.join(FORMS)}.")
    size = file.stat().st_size
    with Progress(console=console) as bar:
        task = bar.add_task("sending", total=size)

        def blocks() -> Iterator[bytes]:
            with file.open("rb") as opened:
                while block := opened.read(BLOCK):
                    yield block
                    bar.advance(task, len(block))

        answer = api.upload(
            "/v1/recipients/import",
            blocks(),
            content_type=content_type,
            mode="replace" if replace else "merge",
        )
    tables.imported(console, answer)
    return bool(answer["error_count"] == 0)
