"""A whole installation for the stories: real servers, our own processes, two keys.

PostgreSQL, Valkey, sandbox, API, beat and two workers, each a process under the supervisor
that `dispatcher up` uses. Stories speak HTTP to it; the simulators' own count is the judge.
"""

import csv
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psycopg
import redis

from channels.contract import ContactKind
from dispatcher.commands import processes
from dispatcher.commands.local import OPERATOR_SCOPES
from dispatcher.commands.places import SANDBOX_URL_FILE, URL_FILE
from dispatcher.demo.numbers import sandbox_only
from dispatcher.demo.people import COLUMNS, Person
from dispatcher.embedded import Service, Stack, discard, launch
from dispatcher.ledger import keys
from dispatcher.ledger.recipients import PublicAccount, sync_public_accounts
from dispatcher.security.rights import Scope
from dispatcher.settings import Settings, environment
from dispatcher.wiring import Services

T = TypeVar("T")
LEASE = 20.0
WORKERS = {
    "desk": ("urgent", "plan", "sweep"),
    "post": ("urgent", "normal", "bulk"),
}
HAVE_IT = ("accepted", "delivered")
PROVIDERS = {
    "twilio_sms": "twilio",
    "sendgrid_email": "sendgrid",
    "x_social": "x",
    "fcm_push": "fcm",
}
_PHONES = tuple(itertools.islice(sandbox_only(), 20_000))
_PAUSE = threading.Event()  # never set: paces the looking at what other processes do


def _processes() -> Iterator[tuple[int, int, str]]:
    """Id, parent and state of every process."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        pid, parent, state = line.split()
        yield int(pid), int(parent), state


def _children(parent: int) -> set[int]:
    return {pid for pid, of, _ in _processes() if of == parent}


def _running() -> set[int]:
    """Those that have not ended; a stopped supervisor leaves ended ones unburied."""
    return {pid for pid, _, state in _processes() if not state.startswith("Z")}


def until(look: Callable[[], T], *, within: float = 40.0, what: str = "it") -> T:
    """What `look` finds, once it is true; fails after `within` seconds with the last it found."""
    end = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not happen within {within:.0f} s: {found!r}"
        _PAUSE.wait(0.05)
    return found


def at(seconds: float) -> str:
    """A moment so many seconds from now, as the API reads it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def fact(kind: str, value: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A fact known a minute ago."""
    return {"kind": kind, "value": dict(value), "source": "noc", "known_at": at(-60), **more}


def person(number: int, segment: str = "consumer", **columns: Any) -> Person:
    """One affected recipient, reachable by what `columns` name and by nothing else."""
    told = {"id": f"r{number}", "name": f"Ada {number}", "locale": "en", "region": "US-TX"}
    services = ("voice", "mobile_data")
    return Person(**{**told, "segment": segment, "services": services, **columns})


def phone(number: int) -> str:
    """A number for simulators only, the same for each `number` below 20,000."""
    return _PHONES[number]


@dataclass(frozen=True, slots=True)
class Caller:
    """HTTP with one key."""

    http: httpx.Client

    def get(self, path: str, **params: str | int) -> Any:
        answer = self.http.get(path, params=params)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The simulators' control calls."""

    http: httpx.Client

    def fault(self, provider: str, **fault: Any) -> int:
        answer = self.http.post("/_sandbox/faults", json={"provider": provider, "fault": fault})
        assert answer.is_success, answer.text
        return int(answer.json()["id"])

    def struck(self) -> int:
        """How many requests the faults in force have struck."""
        return sum(each["struck"] for each in self.http.get("/_sandbox/faults").json())

    def clear_faults(self) -> None:
        self.http.delete("/_sandbox/faults")

    def clear(self) -> None:
        self.clear_faults()
        self.http.delete("/_sandbox/outbox")

    def counts(self, provider: str) -> dict[str, int]:
        """`messages`, `addresses`, `requests` and `errors`, as the simulator counts them."""
        counts: dict[str, int] = self.http.get("/_sandbox/counts").json()[provider]
        return counts

    def outbox(self, provider: str | None = None) -> list[dict[str, Any]]:
        """Every message taken, with `ref` as the ledger writes it."""
        params = {"provider": provider} if provider else {}
        lines = self.http.get("/_sandbox/outbox", params=params).text.splitlines()
        found = [json.loads(line) for line in lines]
        for entry in found:
            if entry["provider"] == "sendgrid":
                # One id per request: the ledger's ref names the delivery within it too.
                entry["ref"] = f"{entry['ref']}:{entry['key']}"
        return found


@dataclass(slots=True)
class House:
    """The running installation."""

    folder: Path
    settings: Settings
    stack: Stack
    services: Services
    operator: Caller
    approver: Caller
    sandbox: Sandbox
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __enter__(self) -> Self:
        return self

    # -- the desk ------------------------------------------------------------------------

    def people(self, rows: Iterable[Person]) -> int:
        """Import a directory; returns how many were added."""
        written = io.StringIO()
        writer = csv.writer(written)
        writer.writerow(COLUMNS)
        writer.writerows(row.row() for row in rows)
        answer = self.operator.http.post(
            "/v1/recipients/import",
            content=written.getvalue().encode(),
            headers={"Content-Type": "text/csv"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["refused"] == 0, answer.json()["errors"][:3]
        return int(answer.json()["added"])

    def opening(self, *audiences: str, release: str = "now", **update: Any) -> dict[str, Any]:
        """The body of a good new incident."""
        facts = [
            fact("started", {"at": at(-600)}),
            fact("emergency_calls", {"status": "limited", "use": ["wifi_calling", "landline"]}),
        ]
        said = {"phase": "investigating", "facts": facts, "next_update_at": at(3_600), **update}
        return {
            "title": f"Story {next(self._names)}",
            "severity": "critical",
            "services": ["voice", "mobile_data"],
            "regions": ["US-TX"],
            "started_at": at(-600),
            "release": release,
            "force": True,
            "update": said | ({"audiences": list(audiences)} if audiences else {}),
        }

    def open(self, *audiences: str, **update: Any) -> dict[str, Any]:
        """Open an incident for these audiences, released at once where the packs allow it."""
        opened: dict[str, Any] = self.operator.post(
            "/v1/incidents", self.opening(*audiences, **update)
        )
        return opened

    def add(self, incident: str, phase: str, *audiences: str, **update: Any) -> dict[str, Any]:
        """Add an update and release it."""
        said = {"phase": phase, "audiences": list(audiences), "next_update_at": at(3_600), **update}
        body = {"release": "now", "update": {n: v for n, v in said.items() if v}}
        added: dict[str, Any] = self.operator.post(f"/v1/incidents/{incident}/updates", body)
        return added

    def progress(self, update: str) -> dict[str, Any]:
        numbers: dict[str, Any] = self.operator.get(f"/v1/updates/{update}/progress")
        return numbers

    def when(
        self, update: str, true: Callable[[dict[str, Any]], bool], *, within: float = 40.0
    ) -> dict[str, Any]:
        """The update's progress once it is as told; fails with the numbers."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.update(self.progress(update))
            return true(last)

        try:
            until(look, within=within)
        except AssertionError:
            raise AssertionError(f"after {within:.0f} s: {last}") from None
        return last

    def complete(self, update: str, *, within: float = 40.0) -> dict[str, Any]:
        return self.when(update, lambda now: bool(now["complete"]), within=within)

    def rows(self, update: str, **only: str) -> list[dict[str, Any]]:
        """The update's deliveries, all pages."""
        found: list[dict[str, Any]] = []
        params: dict[str, str | int] = {"limit": 1_000, **only}
        while True:
            page = self.operator.get(f"/v1/updates/{update}/deliveries", **params)
            found += page["deliveries"]
            if page["next"] is None:
                return found
            params["cursor"] = page["next"]

    # -- the judge -----------------------------------------------------------------------

    def judged(self, *updates: str) -> Counter[str]:
        """States of the updates' rows, once the simulators' own record bears them out.

        Every accepted row is in its simulator's outbox under its ref, once; whatever else
        is in an outbox belongs to a row in doubt; nobody holds one text twice.
        """
        rows = [row for update in updates for row in self.rows(update)]
        outbox = self.sandbox.outbox()
        held = {(entry["provider"], entry["ref"]) for entry in outbox}
        assert len(held) == len(outbox)
        for row in rows:
            row["adapter"] = row["adapter"].partition(".")[0]  # whichever account it went by
        taken = [r for r in rows if r["state"] in HAVE_IT and r["adapter"] in PROVIDERS]
        claimed = {(PROVIDERS[row["adapter"]], row["ref"]) for row in taken}
        assert len(claimed) == len(taken), "two rows claim one message"
        assert claimed <= held, f"{len(claimed - held)} accepted rows are in no outbox"
        doubted = sum(row["state"] == "unknown" for row in rows)
        assert len(held - claimed) <= doubted, f"{len(held - claimed)} messages beyond the rows"
        copies = Counter((e["provider"], e["address"], e["content_hash"]) for e in outbox)
        twice = {key: many for key, many in copies.items() if many > 1}
        assert not twice, f"{len(twice)} people hold one text twice"
        return Counter(row["state"] for row in rows)

    def inbox(self, recipient: str) -> list[dict[str, Any]]:
        """A recipient's in-app messages, as their own app reads them."""
        token = self.operator.post("/v1/inbox/tokens", {"recipient": recipient})["token"]
        # The token alone opens it: the reader has no key.
        answer = self.operator.http.get(
            "/v1/inbox", params={"token": token}, headers={"Authorization": ""}
        )
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages

    # -- the machine room ----------------------------------------------------------------

    def pid(self, name: str) -> int:
        """A child's present process, waiting for its restart if need be."""
        return until(lambda: self.stack.pids().get(name, 0), what=f"a process {name}")

    def signal(self, name: str, number: int) -> int:
        """Signal one child; returns the pid it had."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """These processes stand still while the block runs."""
        pids = [self.signal(name, signal.SIGSTOP) for name in names]
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """PostgreSQL is killed and stays away while the block runs; then the supervisor mends it."""
        pid = self.pid("postgres")
        serving = _children(pid)
        os.kill(self.stack.pid, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            # Those who serve notice it by themselves, and may answer until they do.
            until(lambda: not serving & _running(), within=30, what="the end of its processes")
            yield
        finally:
            os.kill(self.stack.pid, signal.SIGCONT)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database itself says, past every layer of ours."""
        with psycopg.connect(self.stack.addresses.database_url, autocommit=True) as conn:
            cursor = conn.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def log(self, name: str) -> str:
        return (self.folder / "log" / f"{name}.log").read_text(errors="replace")

    def empty(self) -> None:
        """Forget every incident and recipient, faults and outboxes; the public accounts stay."""
        self.sandbox.clear_faults()
        self.sql("UPDATE release SET state = 'stopped'")
        leased = "SELECT count(*) FROM batch WHERE lease_until > now()"
        until(lambda: self.sql(leased) == [(0,)], within=LEASE + 5, what="the end of all leases")
        self.sandbox.clear()
        with redis.Redis.from_url(self.stack.addresses.broker_url) as valkey:
            # What a provider said to one story about waiting is nothing to the next.
            for key in valkey.scan_iter("pace:*"):
                valkey.delete(key)
        tables = self.sql(
            "SELECT string_agg(quote_ident(c.relname), ', ') FROM pg_class c"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition"
            " AND c.relname NOT IN ('alembic_version', 'api_key', 'installation')"
        )[0][0]
        self._truncate(tables)
        accounts = [
            PublicAccount(ContactKind(a.kind), a.address, a.name, a.locale, a.region)
            for a in self.services.packs.organisation.public_accounts
        ]
        with self.services.ledger.transaction() as work:
            sync_public_accounts(work.conn, self.services.sealer, accounts)

    def _truncate(self, tables: str) -> None:
        def done() -> bool:
            try:
                self.sql(f"TRUNCATE {tables} CASCADE")
            except psycopg.errors.DeadlockDetected:
                return False  # with the sweep, which goes on meanwhile
            return True

        until(done, what="an empty ledger")


@contextmanager
def living(
    folder: Path,
    *,
    workers: Mapping[str, Sequence[str]] = WORKERS,
    env: Mapping[str, str] | None = None,
    **other: Any,
) -> Iterator[House]:
    """A house on `folder`; everything is stopped and deleted at the end (4 s to start).

    `workers` are lanes by name, `env` is added to their environment, and `other` are settings
    that differ from a story's.
    """
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "sandbox_url": f"http://127.0.0.1:{_free_port()}",
            "port": 8_100,
            "lease": LEASE,
            # A request that would outlast a story's lease is never started.
            "channels": {
                "sendgrid_email": {"timeout": "10"},
                # The simulator lists what it took after a second.
                "twilio_sms": {"settle_after": "2"},
            },
        }
        | other
    )
    try:
        with launch(folder) as stack:
            services = processes.migrate(settings, wait=10)
            with services.ledger.transaction() as work:
                tokens = [
                    keys.create(
                        work.conn, name="story", scopes=scopes, reach_limit=None, created_by="story"
                    )[1]
                    for scopes in (OPERATOR_SCOPES, frozenset({Scope.READ, Scope.APPROVE}))
                ]
            stack.start_services(
                [
                    _service(settings, "sandbox", ready_file=SANDBOX_URL_FILE),
                    _service(settings, "api", ready_file=URL_FILE),
                ]
            )
            stack.start_services(
                [
                    *(
                        _service(settings, name, "worker", "--lanes", ",".join(lanes), env=env)
                        for name, lanes in workers.items()
                    ),
                    _service(settings, "beat"),
                ]
            )
            url = (folder / URL_FILE).read_text().strip()
            with (
                _http(url, tokens[0]) as operator,
                _http(url, tokens[1]) as approver,
                _http(settings.sandbox_url) as sandbox,
            ):
                yield House(
                    folder=folder,
                    settings=settings,
                    stack=stack,
                    services=services,
                    operator=Caller(operator),
                    approver=Caller(approver),
                    sandbox=Sandbox(sandbox),
                )
            services.ledger.close()
    finally:
        discard(folder)


def _service(
    settings: Settings,
    name: str,
    *arguments: str,
    ready_file: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Service:
    program: Sequence[str] = (sys.executable, "-P", "-m", "dispatcher.cli")
    return Service(
        name,
        (*program, *(arguments or (name,))),
        # The program is that of this checkout, wherever the tests were started.
        {**environment(settings), "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
        ready_file=ready_file,
    )


def _http(url: str, token: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=30.0, trust_env=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
