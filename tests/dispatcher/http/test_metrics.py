"""Figures come from the ledger; a database that is away, frozen or full is an alarm."""

import dataclasses
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest

from dispatcher.http.app import create_app
from dispatcher.http.metrics import LEDGER
from dispatcher.ledger import metrics
from dispatcher.ledger.connection import Ledger, LedgerAway, LedgerFull
from tests.dispatcher.http.client import Client, serving
from tests.dispatcher.http.conftest import Api, opened_by

SENDER = "72345"


@pytest.fixture
def world(api: Api) -> Api:
    """One update under way, one long over, and something wrong of each kind."""
    with api.services.ledger.transaction() as work:
        run = work.conn.execute
        incident = run(
            "INSERT INTO incident (title, summary, severity, services, regions, started_at, drill,"
            " created_by) VALUES ('t', '', 'major', '{}', '{}', now(), false, 'x') RETURNING id"
        ).fetchone()
        assert incident is not None
        updates = []
        for released in ("1 hour", "1 year"):
            update = run(
                "INSERT INTO incident_update (incident_id, phase, texts, audiences, withdraws,"
                " author, release_on_approval) VALUES (%s, 'identified', '{}', '{}', '{}', 'x',"
                " false) RETURNING id",
                incident,
            ).fetchone()
            assert update is not None
            updates.append(update[0])
            run(
                "INSERT INTO release (update_id, audience, lane, state, preapproved, released_at,"
                " planned_at) VALUES (%s, 'consumers', 'bulk', 'released', true,"
                " now() - %s::interval, now())",
                (update[0], released),
            )
        now, old = updates
        run(
            "INSERT INTO release (update_id, audience, lane, state, preapproved, released_at)"
            " VALUES (%s, 'media', 'normal', 'released', true, now() - interval '70 seconds')",
            (now,),
        )
        batch = (
            "INSERT INTO batch (update_id, audience, channel, adapter, sender, lane, seq, size,"
            " open, pending, sending, accepted, unknown, due_at, lease_until, last_accepted_at)"
            " VALUES (%s, 'consumers', 'sms', 'twilio_sms', %s, %s, 0, 10, %s, %s, %s, %s, %s,"
            " now() - interval '40 seconds', now() + %s::interval, now() - interval '20 seconds')"
            " RETURNING id"
        )
        run(batch, (now, SENDER, "urgent", True, 10, 0, 0, 0, None))
        run(batch, (now, SENDER, "bulk", True, 4, 2, 1, 3, "1 minute"))
        dead = run(batch, (now, SENDER, "bulk", True, 0, 5, 0, 0, "-1 second")).fetchone()
        doubtful = run(batch, (now, SENDER, "bulk", False, 0, 0, 5, 2, None)).fetchone()
        run(batch, (old, SENDER, "bulk", False, 0, 0, 1_000, 7, None))
        assert dead is not None and doubtful is not None
        run(
            "INSERT INTO doubt (update_id, delivery_id, batch_id, adapter, sender, number, epoch,"
            " claimed_at, doubted_at) VALUES (%s, uuidv7(), %s, 'twilio_sms', %s, 1, 1, now(),"
            " now() - interval '50 seconds')",
            (now, doubtful[0], SENDER),
        )
        run(
            "INSERT INTO breaker (adapter, sender, reason, detail, opened_at, probe_at) VALUES"
            " ('twilio_sms', %s, 'credentials', '', now() - interval '30 seconds', now())",
            (SENDER,),
        )
        run(
            "INSERT INTO receipt (adapter, received_at, requests, sealed)"
            " VALUES ('twilio_sms', now() - interval '60 seconds', 1, '')"
        )
    return api


def shown(text: str) -> dict[str, float]:
    """Every sample by its name with labels."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_figures_tell_what_stands_in_the_ledger(world: Api) -> None:
    ledger = world.services.ledger
    with ledger.read() as conn:
        samples = metrics.read(conn, readers=["sendgrid_email", "twilio_sms"])
    found = {(sample.figure, *sample.labels): sample.value for sample in samples}

    assert found["deliveries", "sms", "pending"] == 14
    # A year ago is over: its thousand are not read.
    assert found["deliveries", "sms", "accepted"] == 6
    assert found["deliveries", "sms", "unknown"] == 5
    assert found["unknown_for_good", "twilio_sms"] == 4
    assert found["doubts", "twilio_sms"] == 1
    assert (found["batches", "urgent", "due"], found["batches", "urgent", "leased"]) == (1, 0)
    assert (found["batches", "bulk", "due"], found["batches", "bulk", "leased"]) == (1, 1)
    assert (found["batches", "normal", "due"], found["oldest_due", "normal"]) == (0, 0)
    assert found["leases_dead",] == 1
    assert found["breakers_open", "twilio_sms"] == 1
    for least, figure in {
        40: ("oldest_due", "urgent"),
        50: ("oldest_doubt", "twilio_sms"),
        30: ("breaker_open", "twilio_sms", SENDER, "credentials"),
        20: ("last_accepted", "twilio_sms"),
        60: ("last_receipt", "twilio_sms"),
        70: ("unplanned",),
    }.items():
        assert least <= found[figure] < 3_000, figure
    # What never was is older than any limit.
    assert found["last_receipt", "sendgrid_email"] == float("inf")
    assert found["last_sweep",] == float("inf")
    assert found["database_bytes",] > 1_000_000
    assert {figure[0] for figure in found} <= LEDGER.keys()


def test_a_sweep_leaves_its_mark(world: Api) -> None:
    world.services.recovery.sweep()

    with world.services.ledger.read() as conn:
        found = {s.figure: s.value for s in metrics.read(conn, readers=[])}
    assert found["last_sweep"] < 3_000
    assert found["leases_dead"] == 0


def test_every_figure_has_its_unit_and_help(world: Api) -> None:
    text = world.client("read").get("/metrics").body.decode()
    values = shown(text)
    named = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))

    assert {told.name for told in LEDGER.values()} <= named
    assert values["dispatcher_ledger_reachable"] == 1
    assert values["dispatcher_ledger_full"] == 0
    assert values["dispatcher_broker_reachable"] == 1
    assert values['dispatcher_deliveries{channel="sms",state="pending"}'] == 14
    assert values['dispatcher_queue_messages{queue="urgent"}'] >= 0
    ages = [name for name in named if "oldest" in name or "_last_" in name]
    assert ages and all(name.endswith("_seconds") for name in ages)
    with world.services.ledger.read() as conn:
        people = conn.execute("SELECT hint FROM contact_point").fetchall()
    assert not any(hint in text for (hint,) in people)


def test_room_on_the_disk_of_an_embedded_database(api: Api) -> None:
    settings = api.services.settings.model_copy(update={"database_url": None})
    services = dataclasses.replace(api.services, settings=settings)
    with serving(create_app(services)) as port:
        values = shown(Client(port, api.key("read")).get("/metrics").body.decode())

    assert 0 < values["dispatcher_disk_free_bytes"] <= values["dispatcher_disk_size_bytes"]


def test_the_look_for_room_needs_room(api: Api) -> None:
    url = urlsplit(api.services.ledger.database_url)
    query = "&".join(filter(None, [url.query, "options=-ctemp_file_limit%3D100kB"]))
    limited = Ledger(url._replace(query=query).geturl(), size=1)
    with closing(limited), pytest.raises(LedgerAway):
        limited.check_room()
    api.services.ledger.check_room()


@pytest.fixture
def without_room(api: Api) -> Iterator[Api]:
    """The database refuses a new incident as it does without room on its disk."""
    url = api.services.ledger.database_url
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        conn.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON incident"
            " FOR EACH STATEMENT EXECUTE FUNCTION no_room()"
        )
        yield api
        conn.execute("DROP FUNCTION no_room CASCADE")


def test_a_full_disk_is_told_by_its_name(without_room: Api) -> None:
    api = without_room
    ledger = Ledger(api.services.ledger.database_url)
    services = dataclasses.replace(api.services, ledger=ledger)
    with closing(ledger), serving(create_app(services)) as port:
        client = Client(port, api.key("read", "incidents:write"))
        assert client.get("/readyz").json["ready"] is True
        refused = client.post("/v1/incidents", opened_by())
        ready = client.get("/readyz")
        values = shown(client.get("/metrics").body.decode())
        with pytest.raises(LedgerFull):
            ledger.check_room()

    assert (refused.status, refused.json["type"]) == (503, "/problems/disk-full")
    assert refused.headers["retry-after"] == "5"
    assert (ready.status, ready.json["reasons"]) == (503, ["disk full"])
    assert (ready.json["database"], ready.json["schema"]) == (True, True)
    assert values["dispatcher_ledger_full"] == 1
    assert values["dispatcher_ledger_reachable"] == 1
    assert api.count("incident") == 0


class Between:
    """Carries bytes between clients and PostgreSQL, until it is frozen."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parse_qs(parts.query).get("host", [unquote(parts.hostname or "")])[0]
        port = parts.port or int(parse_qs(parts.query).get("port", ["5432"])[0])
        unix = host.startswith("/")
        self._to = (f"{host}/.s.PGSQL.{port}") if unix else (host, port)
        self._family = socket.AF_UNIX if unix else socket.AF_INET
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self._moving = threading.Event()
        self._moving.set()
        own = f"127.0.0.1:{self._listening.getsockname()[1]}"
        user = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{user}@{own}" if user else own, query="").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Nothing is carried from now on, and nothing is closed."""
        self._moving.clear()

    def close(self) -> None:
        self._moving.set()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(self._family)
                server.connect(self._to)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._moving.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def frozen_later(api: Api) -> Iterator[tuple[Ledger, Between]]:
    between = Between(api.services.ledger.database_url)
    ledger = Ledger(between.url, size=4, patience=2.0)
    try:
        for _ in range(20):  # a slow machine connects when it can
            with suppress(LedgerAway), ledger.read():
                break
        yield ledger, between
    finally:
        between.close()
        ledger.close()


def test_a_frozen_database_is_away_and_figures_go_on(api: Api) -> None:
    with frozen_later(api) as (ledger, between):
        services = dataclasses.replace(api.services, ledger=ledger)
        with serving(create_app(services)) as port:
            known = Client(port, api.key("read"))
            assert known.get("/readyz").json["reasons"] == []
            unseen = Client(port, api.key("read"))
            between.freeze()
            # Each waits for the database before it gives up: all at once.
            with ThreadPoolExecutor() as callers:
                asked = [
                    callers.submit(client.get, path)
                    for client, path in (
                        (known, "/readyz"),
                        (known, "/metrics"),
                        (unseen, "/metrics"),
                        (known, "/v1/incidents"),
                    )
                ]
            ready, figures, stranger, call = (each.result() for each in asked)

    assert (ready.status, ready.json["reasons"]) == (503, ["database away"])
    assert (ready.json["database"], ready.json["schema"]) == (False, False)
    assert figures.status == 200
    values = shown(figures.body.decode())
    assert values["dispatcher_ledger_reachable"] == 0
    assert "dispatcher_last_sweep_seconds" not in values
    # The database knows keys, and this one was never seen.
    for refused in (stranger, call):
        assert (refused.status, refused.json["type"]) == (503, "/problems/database-away")


def test_a_revoked_key_is_not_remembered(api: Api) -> None:
    with frozen_later(api) as (ledger, between):
        services = dataclasses.replace(api.services, ledger=ledger)
        with serving(create_app(services)) as port:
            client = Client(port, api.key("read"))
            assert client.get("/metrics").status == 200
            with api.services.ledger.read() as conn:
                conn.execute("UPDATE api_key SET revoked_at = now()")
            assert client.get("/metrics").status == 401
            between.freeze()
            assert client.get("/metrics").status == 503
