"""A whole installation to be measured: servers, API, beat and the shipped set of workers.

Its adapters speak to the sink. What makes a figure honest is asserted here: durability on,
logged tables, contacts sealed by the real import. Must not know what is measured.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from redis import Redis

from bench.crowd import Crowd
from bench.racing import ROOT
from bench.sink import Sink
from bench.waiting import until
from dispatcher import supervisor
from dispatcher.commands import processes
from dispatcher.commands.local import OPERATOR_SCOPES, WORKERS, kept_key
from dispatcher.commands.places import OPERATOR_KEY, URL_FILE
from dispatcher.embedded import Service, Stack, discard, launch
from dispatcher.settings import Settings, environment
from dispatcher.wiring import Services

PROFILE = "BENCH_PROFILE"
"""Names a folder that gets a cProfile file of each worker."""
RATE = 1_000_000.0
"""Units a second of every sender where pace is not what is measured; it is asked all the same."""

_ORGANISATION = """
[senders.sms.default]
value = "Northvale"
kind = "alphanumeric"
sandbox_rate = {rate}
[senders.sms.US]
value = "72345"
kind = "short_code"
sandbox_rate = {rate}
[senders.email.default]
value = "Northvale Wireless <service@northvale.example>"
kind = "mail"
sandbox_rate = {rate}
[senders.social.default]
value = "northvalehelp"
kind = "x_account"
sandbox_rate = 10
[senders.push.default]
value = "northvale"
kind = "app"
sandbox_rate = {rate}
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """An incident that was posted, and the moment before (monotonic clock)."""

    update: str
    at: float


@dataclass(frozen=True, slots=True)
class House:
    """The running installation."""

    settings: Settings
    stack: Stack
    services: Services
    sink: Sink
    http: httpx.Client

    def take_in(self, crowd: Crowd) -> float:
        """Import a crowd over HTTP; returns the seconds it took."""
        began = time.monotonic()
        answer = self.http.post(
            "/v1/recipients/import", content=crowd.csv(), headers={"Content-Type": "text/csv"}
        )
        told = answer.raise_for_status().json()
        assert told["refused"] == 0, told["errors"][:3]
        return time.monotonic() - began

    def open(self, crowd: Crowd) -> Opened:
        """Post an incident that is released at once to this crowd and to nobody else."""
        body = _incident(crowd)
        began = time.monotonic()
        answer = self.http.post("/v1/incidents", json=body)
        assert answer.status_code == 201, answer.text
        return Opened(answer.json()["update"]["id"], began)

    def call(self, path: str) -> dict[str, Any]:
        """POST without a body."""
        answer = self.http.post(path, json={})
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def progress(self, update: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/updates/{update}/progress").json()
        return found

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database itself says."""
        with psycopg.connect(self.stack.addresses.database_url, autocommit=True) as conn:
            return conn.execute(statement.encode(), values).fetchall()

    def counted(self, update: str) -> Mapping[str, int]:
        """The update's counters by state; cheap enough to be asked while it is sent."""
        states = ("pending", "sending", "accepted", "delivered", "failed", "unknown", "stopped")
        sums = ", ".join(f"coalesce(sum({state}), 0)::bigint" for state in states)
        row = self.sql(f"SELECT {sums} FROM batch WHERE update_id = %s", update)[0]
        return dict(zip(states, row, strict=True))

    def settled(self, update: str, *, rows: int, within: float) -> None:
        """Wait until all rows are there and none of them moves. Raises `TooSlow`."""
        with psycopg.connect(self.stack.addresses.database_url, autocommit=True) as conn:

            def done() -> bool:
                found = conn.execute(
                    "SELECT coalesce(sum(size), 0), coalesce(sum(pending + sending), 0)"
                    " FROM batch WHERE update_id = %s",
                    (update,),
                ).fetchone()
                return found is not None and found[0] >= rows and found[1] == 0

            until(done, within=within, what="sending", every=0.1)

    def span(self, update: str) -> float:
        """Seconds from release to the last acceptance, by the ledger's own clock."""
        found = self.sql(
            "SELECT extract(epoch FROM max(b.last_accepted_at) - min(r.released_at))::float8"
            " FROM batch b JOIN release r USING (update_id) WHERE update_id = %s"
            " AND r.released_at IS NOT NULL",
            update,
        )
        return float(found[0][0])

    def rested(self) -> None:
        """The database as it is some time after an import: tidied up, its files written."""
        with psycopg.connect(self.stack.addresses.database_url, autocommit=True) as conn:
            conn.execute("VACUUM (ANALYZE)")
            conn.execute("CHECKPOINT")

    def peak_worker_rss_mb(self) -> float:
        """The most memory that any worker has had, in MB."""
        pids = self.stack.pids()
        return max(_peak_mb(pid) for name, pid in pids.items() if name in WORKERS)

    def worker_cpu_seconds(self) -> float:
        """CPU that all workers and PostgreSQL have used so far, children included."""
        wanted = {*WORKERS, "postgres"}
        return sum(_cpu_seconds(pid) for name, pid in self.stack.pids().items() if name in wanted)


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its living and ended children."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == pid:
            total += sum(int(fields[at]) for at in (11, 12, 13, 14))
        elif int(fields[1]) == pid:
            total += sum(int(fields[at]) for at in (11, 12))
    return total / ticks


def _incident(crowd: Crowd) -> dict[str, Any]:
    now = datetime.now(UTC)
    earlier, later = now - timedelta(minutes=10), now + timedelta(hours=1)
    known = {"source": "noc", "known_at": (now - timedelta(minutes=1)).isoformat()}
    emergency = {"status": "limited", "use": ["wifi_calling", "landline"]}
    return {
        "title": "Bench",
        "severity": "critical",
        "services": ["voice", "mobile_data"],
        "regions": [crowd.region],
        "started_at": earlier.isoformat(),
        "release": "now",
        "force": True,
        "update": {
            "phase": "investigating",
            "facts": [
                {"kind": "started", "value": {"at": earlier.isoformat()}, **known},
                {"kind": "emergency_calls", "value": emergency, **known},
            ],
            "next_update_at": later.isoformat(),
            "audiences": [crowd.audience],
        },
    }


@contextmanager
def folder() -> Iterator[Path]:
    """A data folder of this run's own, on the disk of the checkout; it is deleted at the end."""
    # Not in the system's folder for such things, which may be memory.
    above = ROOT / ".dispatcher"
    for left in above.glob("bench-*"):
        if not supervisor.exists(int(left.name.removeprefix("bench-"))):
            discard(left)
            shutil.rmtree(left, ignore_errors=True)
    place = above / f"bench-{os.getpid()}"
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        discard(place)
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def living(
    place: Path, sink: Sink, *, rate: float = RATE, public_url: str | None = None
) -> Iterator[House]:
    """An installation on `place`, whose senders go at `rate`; what an earlier one left is kept.

    With a `public_url` it asks providers to call back there.
    """
    overlay = place / "overlay"
    overlay.mkdir(exist_ok=True)
    (overlay / "organisation.toml").write_text(_ORGANISATION.format(rate=rate))
    settings = Settings(
        data_dir=place, overlay=overlay, sandbox_url=sink.url, port=8_200, public_url=public_url
    )
    with launch(place) as stack:
        services = processes.migrate(settings, wait=10)
        with services.ledger.transaction() as work:
            token = kept_key(work.conn, place / OPERATOR_KEY, OPERATOR_SCOPES)
        stack.start_services([_service(settings, "api", "api", ready_file=URL_FILE)])
        stack.start_services(
            [
                *(
                    _service(settings, name, "worker", "--lanes", ",".join(lanes))
                    for name, lanes in WORKERS.items()
                ),
                _service(settings, "beat", "beat"),
            ]
        )
        headers = {"Authorization": f"Bearer {token}"}
        url = (place / URL_FILE).read_text().strip()
        with httpx.Client(base_url=url, headers=headers, timeout=300, trust_env=False) as http:
            house = House(settings, stack, services, sink, http)
            _honest(house)
            _at_work(house)
            try:
                yield house
            except Exception:
                _last_words(place)
                raise
            finally:
                services.ledger.close()


def _honest(house: House) -> None:
    """Durability as a careful operator has it; otherwise no figure is worth anything."""
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert house.sql(f"SHOW {name}") == [("on",)], f"{name} is off"
    unlogged = house.sql(
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'"
    )
    assert unlogged == [(0,)], "an unlogged table"


def _last_words(place: Path) -> None:
    """What the processes logged as wrong: their logs go with the folder."""
    for log in sorted((place / "log").glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        wrong = [line for line in lines if '"level": "error"' in line or "Error:" in line]
        for line in wrong[-5:]:
            print(f"{log.name}: {line[:400]}", file=sys.stderr)


def _at_work(house: House) -> None:
    """Wait until every worker waits for its queues: starting is not what is measured."""
    with Redis.from_url(house.stack.addresses.broker_url) as valkey:

        def waiting() -> int:
            return sum(client["cmd"] == "brpop" for client in valkey.client_list())

        until(lambda: waiting() >= len(WORKERS), within=90, what="the workers' start")


def _service(
    settings: Settings, name: str, *arguments: str, ready_file: str | None = None
) -> Service:
    program: Sequence[str] = (sys.executable, "-P", "-m", "dispatcher.cli")
    profile = os.environ.get(PROFILE)
    if profile and arguments[0] == "worker":
        Path(profile).mkdir(parents=True, exist_ok=True)
        file = str(Path(profile).resolve() / f"{name}.prof")
        program = (sys.executable, "-P", "-m", "cProfile", "-o", file, *program[2:])
    return Service(
        name,
        (*program, *arguments),
        environment(settings) | {"PYTHONPATH": str(ROOT)},
        ready_file=ready_file,
    )
