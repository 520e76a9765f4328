"""The demonstration from an empty folder to the balance: start, import, play, audit, tell.

Knows the order of things and who is asked for what. The engine is reached over HTTP only;
the audit alone reads the ledger and the simulators' outbox.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from channels.sandbox.contents import content_hash
from dispatcher.commands import local
from dispatcher.commands.client import Client
from dispatcher.commands.local import Local
from dispatcher.commands.places import URL_FILE, announce, withdraw
from dispatcher.demo import audit, balance, census
from dispatcher.demo.audit import Findings, Row
from dispatcher.demo.people import people, spark_people, write_csv
from dispatcher.demo.play import Player, Told, TooLate, span
from dispatcher.demo.scenario import Scenario, load
from dispatcher.demo.screen import Screen
from dispatcher.ledger import inbox, progress, updates
from dispatcher.settings import Settings, SettingsError

LIMIT = 600.0
"""Seconds after which `--exit` gives up."""
LEASE = 20.0
PAGE = 5_000
SOURCES = {"US": people, "NZ": spark_people}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to play, to how many, and whether to leave at the end."""

    recipients: int
    scenario: str
    leave: bool
    as_json: bool


def demo(settings: Settings, wanted: Wanted, screen: Screen) -> bool:
    """Run it; returns whether every update is complete with nothing lost or doubled.

    Unless `wanted.leave`, it stays up afterwards until KeyboardInterrupt. Raises what
    starting raises, `ApiError`, `TooLate`.
    """
    began = time.monotonic()
    scenario = load(wanted.scenario)
    if settings.mode != "sandbox":
        raise SettingsError([("DISPATCHER_MODE", "is live: the demo runs in sandbox mode only")])
    folder = settings.data_dir / "demo"
    own = local.embedded_settings(settings, folder).model_copy(
        # A killed worker's rows are accounted for once its lease is over.
        update={"overlay": scenario.overlay or settings.overlay, "lease": LEASE}
    )
    deadline = began + LIMIT if wanted.leave else None
    screen.step(f"starting PostgreSQL and Valkey in {folder}")
    local.emptied(own.data_dir)
    file = own.data_dir.with_name("demo-recipients.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=1) as making:
        made = making.submit(write_csv, file, wanted.recipients, source=SOURCES[scenario.country])
        with local.running(own, say=_steps(screen)) as here:
            announce(settings.data_dir / URL_FILE, here.url)
            try:
                made.result()
                return _run(here, scenario, wanted, screen=screen, began=began, deadline=deadline)
            finally:
                withdraw(settings.data_dir / URL_FILE, here.url)


def _steps(screen: Screen) -> Any:
    words = {
        "schema": "making the ledger's schema and checking the packs",
        "processes": "starting sandbox, API, beat and workers",
    }
    return lambda step: screen.step(words[step])


def _run(
    here: Local,
    scenario: Scenario,
    wanted: Wanted,
    *,
    screen: Screen,
    began: float,
    deadline: float | None,
) -> bool:
    file = here.settings.data_dir.with_name("demo-recipients.csv")
    with (
        Client(here.url, here.operator_key) as operator,
        Client(here.url, here.approver_key) as approver,
    ):
        _import(operator, file, wanted.recipients, screen)
        player = Player(
            scenario, operator=operator, approver=approver, screen=screen, deadline=deadline
        )
        told = player.play()
        screen.step("counting again, without the engine's counters")
        findings = _audit(here, file, scenario, told)
        result = _result(here, wanted, told, findings=findings, seconds=time.monotonic() - began)
        screen.close()
        balance.show(screen.console, told, findings, result)
        balance.show_next(screen.console, here, operator, told)
    if deadline is not None and time.monotonic() > deadline:
        raise TooLate("the demo did not finish within its time")
    if wanted.as_json:
        print(json.dumps(result), flush=True)  # noqa: T201 - the last line of stdout is the answer
    if not wanted.leave:
        threading.Event().wait()  # never set: Ctrl-C ends it
    return bool(result["complete"]) and findings.lost == 0 and findings.duplicates == 0


def _import(operator: Client, file: Path, count: int, screen: Screen) -> None:
    size = file.stat().st_size
    screen.work(f"importing {count:,} recipients", count)
    began = time.monotonic()

    def blocks() -> Iterator[bytes]:
        sent = 0
        with file.open("rb") as opened:
            while block := opened.read(64 * 1024):
                sent += len(block)
                yield block
                screen.moved(count * sent // size, count)

    answer = operator.upload("/v1/recipients/import", blocks(), content_type="text/csv")
    seconds = time.monotonic() - began
    refused = f", {answer['refused']:,} refused" if answer["refused"] else ""
    screen.done(f"{answer['added']:,} added{refused} in {seconds:.1f} s")


def _audit(here: Local, file: Path, scenario: Scenario, told: list[Told]) -> Findings:
    with here.services.ledger.read() as conn:
        inboxes = inbox.counts(conn)
    return audit.examine(
        file,
        updates=[_rows(here, update.update_id) for update in told],
        verdicts=census.expected(file, scenario, audit.rules(here.services.packs)),
        held=_held(here.settings.sandbox_url),
        inboxes=inboxes,
        texts=[_texts(here, update.update_id) for update in told],
    )


def _texts(here: Local, update_id: str) -> list[tuple[str, str, str]]:
    """What the messages of channels without keys say, hashed as the simulators do."""
    with here.services.ledger.read() as conn:
        messages = updates.messages(conn, update_id)
    return [
        (message["audience"], message["channel"], content_hash({"text": message["parts"]["text"]}))
        for message in messages
        if set(message["parts"]) == {"text"}
    ]


def _rows(here: Local, update_id: str) -> Iterable[Row]:
    after: str | None = None
    while True:
        with here.services.ledger.read() as conn:
            page = progress.deliveries(conn, update_id, after=after, limit=PAGE)
        yield from map(Row.of, page)
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


def _held(sandbox_url: str) -> Iterator[audit.Entry]:
    params = {"fields": "provider,ref,key,address,content_hash"}
    with (
        httpx.Client(base_url=sandbox_url, timeout=60.0, trust_env=False) as sandbox,
        sandbox.stream("GET", "/_sandbox/outbox", params=params) as answer,
    ):
        answer.raise_for_status()
        yield from audit.entries(answer.iter_lines(), orjson.loads)


def _channels(here: Local) -> dict[str, int]:
    """Messages per channel as those who received them count: simulators, and inboxes read."""
    with httpx.Client(base_url=here.settings.sandbox_url, timeout=60.0, trust_env=False) as sandbox:
        counts: Mapping[str, Mapping[str, int]] = sandbox.get("/_sandbox/counts").json()
    with here.services.ledger.read() as conn:
        in_inboxes = sum(inbox.counts(conn).values())
    return {
        "sms": counts["twilio"]["messages"],
        "email": counts["sendgrid"]["messages"],
        "social": counts["x"]["messages"],
        "push": counts["fcm"]["messages"] + in_inboxes,
    }


def _result(
    here: Local,
    wanted: Wanted,
    told: list[Told],
    *,
    findings: Findings,
    seconds: float,
) -> dict[str, Any]:
    return {
        "recipients": wanted.recipients,
        "scenario": wanted.scenario,
        "mode": here.services.mode,
        "seconds": round(seconds, 1),
        "seconds_to_last_accept": span(told),
        "complete": all(update.progress["complete"] for update in told),
        "lost": findings.lost,
        "duplicates": findings.duplicates,
        "channels": _channels(here),
        "audit": {
            name: getattr(findings, name)
            for name in (
                *("rows", "accepted", "in_doubt", "held", "covered", "expected"),
                *("not_in_outbox", "at_another_address", "without_row"),
            )
        },
        "updates": [update.as_json() for update in told],
    }
