"""Each process as a process: it starts, does its work, and ends when it is told."""

import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from redis import Redis

from dispatcher import wiring
from dispatcher.commands import processes
from dispatcher.commands.places import SANDBOX_URL_FILE, URL_FILE
from dispatcher.demo.people import write_csv
from dispatcher.http.directory import known_values
from dispatcher.incidents import NewIncident, NewUpdate
from dispatcher.ledger import progress
from dispatcher.recipient_files import Form
from dispatcher.recipients import Mode, import_stream
from dispatcher.security.rights import Actor, Scope
from dispatcher.settings import Settings
from dispatcher.wiring import Services
from tests.dispatcher.commands.conftest import Running, until

Start = Callable[..., Running]
OPERATOR = Actor("test", "test", frozenset(Scope))
SLOW = """
[senders.sms.default]
value = "Northvale"
kind = "alphanumeric"
sandbox_rate = 40

[senders.sms.US]
value = "72345"
kind = "short_code"
sandbox_rate = 40
"""


def url_in(file: Path) -> str:
    until(file.exists)
    return file.read_text().strip()


def test_the_api_tells_where_it_listens_and_takes_it_back(
    settings: Settings, command: Start
) -> None:
    processes.migrate(settings, wait=5).ledger.close()
    api = command(settings, "api")
    file = settings.data_dir / URL_FILE
    url = url_in(file)
    assert httpx.get(f"{url}/healthz").status_code == 200
    # A second one in the same folder takes the next port and stands in the file.
    second = command(settings, "api")
    until(lambda: file.read_text().strip() != url)
    assert httpx.get(f"{file.read_text().strip()}/healthz").status_code == 200
    assert api.stop() < 10
    assert file.exists()
    assert second.stop() < 10
    assert (api.process.returncode, second.process.returncode) == (0, 0)
    assert not file.exists()


def test_an_exact_port_that_is_taken_is_refused(settings: Settings, command: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        api = command(settings, "api", "--port", str(taken.getsockname()[1]))
        assert "cannot be listened on" in api.output()
        assert api.process.returncode == 1


def test_the_sandbox_tells_where_it_listens(settings: Settings, command: Start) -> None:
    sandbox = command(settings, "sandbox", "--port", "0")
    url = url_in(settings.data_dir / SANDBOX_URL_FILE)
    assert httpx.get(f"{url}/_sandbox/health").json() == {"status": "ok"}
    assert sandbox.stop() < 5


def test_beat_sweeps_again_after_it_was_killed(settings: Settings, command: Start) -> None:
    broker = Redis.from_url(settings.secret("broker_url") or "")
    for _ in range(2):
        broker.flushdb()
        beat = command(settings, "beat")
        until(lambda: broker.llen("sweep") > 1)
        beat.stop(signal.SIGKILL)
    broker.flushdb()


@pytest.mark.parametrize("lanes", ["fast", "", "urgent,slow"])
def test_an_unknown_lane_is_refused(settings: Settings, command: Start, lanes: str) -> None:
    worker = command(settings, "worker", "--lanes", lanes)
    assert "known lanes" in worker.output()
    assert worker.process.returncode == 2


def test_a_worker_does_not_start_on_an_older_schema(settings: Settings, command: Start) -> None:
    services = processes.migrate(settings, wait=5)
    with services.ledger.transaction() as work:
        work.conn.execute("DROP TABLE alembic_version")
    services.ledger.close()
    worker = command(settings, "worker", "--lanes", "urgent")
    assert "dispatcher migrate" in worker.output()
    assert worker.process.returncode == 1


def test_migrating_twice_in_either_order_is_the_same(settings: Settings, command: Start) -> None:
    for _ in range(2):
        migrate = command(settings, "migrate")
        assert "sandbox mode" in migrate.output()
        assert migrate.process.returncode == 0
    other = command(settings.model_copy(update={"mode": "live"}), "migrate")
    assert "refuses live mode" in other.output()
    assert other.process.returncode == 1


def test_a_broken_pack_stops_the_migration_with_file_and_line(
    settings: Settings, command: Start, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay"
    (overlay / "consumers" / "sms").mkdir(parents=True)
    broken = overlay / "consumers" / "sms" / "investigating.en.j2"
    broken.write_text("{# a comment #}\n{{ unclosed\n")
    rules = wiring.CHECKED_OUT / "consumers" / "audience.toml"
    (overlay / "consumers" / "audience.toml").write_bytes(rules.read_bytes())
    migrate = command(settings.model_copy(update={"overlay": overlay}), "migrate")
    assert f"{broken}:2: " in migrate.output()
    assert migrate.process.returncode == 1


def test_a_database_that_is_away_is_waited_for_and_told(settings: Settings, command: Start) -> None:
    away = settings.model_copy(
        update={"database_url": type(settings.database_url)("postgresql://x@127.0.0.1:9/none")}
    )
    migrate = command(away, "migrate", "--wait", "0")
    assert "The database cannot be reached" in migrate.output()
    assert migrate.process.returncode == 1


def loaded(settings: Settings, file: Path, count: int) -> Services:
    """Services over a migrated ledger with some people in it."""
    services = processes.migrate(settings, wait=5)
    write_csv(file, count)
    with file.open("rb") as stream:
        import_stream(
            services.ledger,
            services.sealer,
            stream,
            form=Form.CSV,
            mode=Mode.MERGE,
            known=known_values(services),
            actor="test",
        )
    return services


def open_incident(services: Services) -> str:
    now = datetime.now(UTC)
    incident = NewIncident(
        title="t",
        severity="critical",
        services=("voice", "sms"),
        started_at=now - timedelta(minutes=5),
    )
    update = NewUpdate.model_validate(
        {
            "phase": "investigating",
            "facts": [
                {
                    "kind": "emergency_calls",
                    "source": "test",
                    "known_at": now,
                    "value": {"status": "working"},
                }
            ],
        }
    )
    with services.ledger.transaction() as work:
        return services.updates.open(
            work, incident, update, release="now", actor=OPERATOR
        ).update_id


def test_a_busy_worker_ends_cleanly_within_twenty_seconds(
    settings: Settings, simulators: str, command: Start, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "organisation.toml").write_text(SLOW)
    settings = settings.model_copy(update={"sandbox_url": simulators, "overlay": overlay})
    services = loaded(settings, tmp_path / "people.csv", 1_500)
    worker = command(settings, "worker", "--lanes", "urgent,plan,normal,bulk")
    update_id = open_incident(services)

    def numbers() -> progress.Progress:
        with services.ledger.read() as conn:
            return progress.read(conn, update_id, services.balances)

    # In the middle of a batch: some are told, some are on the way, most still wait.
    until(lambda: numbers().by_state["sending"] and numbers().by_state["accepted"] > 20, within=80)
    assert numbers().by_state["pending"] > 100
    assert worker.stop() < 20
    assert worker.process.returncode == 0
    left = numbers()
    assert left.by_state["sending"] == 0
    assert left.by_state["unknown"] == 0
    assert left.by_state["pending"] > 100
    with services.ledger.read() as conn:
        leased = conn.execute("SELECT count(*) FROM batch WHERE lease_until IS NOT NULL").fetchone()
    assert leased == (0,)
    sent = httpx.get(f"{simulators}/_sandbox/counts").json()
    outside = sum(provider["messages"] for provider in sent.values())
    inboxes = left.by_channel["push"]["accepted"] - sent["fcm"]["messages"]
    assert left.by_state["accepted"] == outside + inboxes
    services.ledger.close()
