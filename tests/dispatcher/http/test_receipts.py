"""Providers at the door: who is believed, what is refused, and that a 204 is durable."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from channels.contract import (
    Consent,
    Reading,
    Reason,
    Receipt,
    ReceiptRefused,
    ReceiptRequest,
    ReceiptStatus,
)
from dispatcher.delivery.intake import Intake, Told, as_it_came
from dispatcher.http.app import create_app
from dispatcher.http.receipts import ENOUGH, Together
from dispatcher.ledger.connection import Ledger, LedgerRefused
from dispatcher.wiring import Services
from tests.dispatcher.http.client import Client, Reply, serving
from tests.dispatcher.http.conftest import Api

PUBLIC = "https://outage.example.org/api"
KEY = "018f0000-0000-7000-8000-000000000000"


class Signed:
    """An adapter whose provider signs with the URL, and whose body is a list of events."""

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        signed = request.headers.get("x-signed")
        if signed is None:
            raise ReceiptRefused("unsigned", "no signature")
        if signed != request.public_url:
            raise ReceiptRefused("forged", "not ours")
        try:
            events = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise ReceiptRefused("unreadable", "no JSON") from None
        consents = [
            Consent(e["event"], "phone", e["stop"], False, Reason.OPTED_OUT)
            for e in events
            if "stop" in e
        ]
        receipts = [
            Receipt(e["event"], KEY, "ref", ReceiptStatus.DELIVERED)
            for e in events
            if "stop" not in e
        ]
        return Reading(tuple(receipts), tuple(consents))


class Unready:
    """An adapter without what it needs to verify."""

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        raise ReceiptRefused("not_configured", "no key")


def door(services: Services, **other: Any) -> Services:
    settings = services.settings.model_copy(update={"public_url": PUBLIC})
    adapters: dict[str, Any] = {"signed": Signed(), "unready": Unready(), "deaf": object()}
    return replace(services, settings=settings, adapters=adapters, **other)


@pytest.fixture
def port(api: Api) -> Iterator[int]:
    with serving(create_app(door(api.services))) as port:
        yield port


def post(
    port: int,
    body: Any,
    *,
    adapter: str = "signed",
    query: str = "",
    signed: str | None = "",
    **headers: str,
) -> Reply:
    path = f"/v1/receipts/{adapter}{query}"
    if signed is not None:
        headers["X_Signed"] = signed or f"{PUBLIC}{path}"
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return Client(port).send("POST", path, data, **headers)


def test_a_believed_request_is_durable_when_it_is_answered(api: Api, port: int) -> None:
    found = post(port, [{"event": "a"}, {"event": "b"}], query="?key=%20x&b=1")
    assert (found.status, found.body) == (204, b"")
    assert api.count("receipt_event") == 2
    with api.services.ledger.read() as conn:
        sealed = conn.execute("SELECT adapter, sealed FROM receipt").fetchall()
    (came,) = as_it_came(api.services.sealer, sealed[0][0], bytes(sealed[0][1]))
    assert came.public_url == f"{PUBLIC}/v1/receipts/signed?key=%20x&b=1"
    assert came.body == b'[{"event":"a"},{"event":"b"}]'
    assert came.headers["x-signed"] == came.public_url


def test_what_is_said_again_is_answered_and_counted_once(api: Api, port: int) -> None:
    for _ in range(3):
        assert post(port, [{"event": "a"}, {"event": "a"}]).status == 204
    assert (api.count("receipt_event"), api.count("receipt")) == (1, 3)


def test_a_stop_suppresses_before_it_is_answered(api: Api, port: int) -> None:
    assert post(port, [{"event": "s", "stop": "+1 202 555 0101"}]).status == 204
    found = api.client().get("/v1/suppressions").json["suppressions"]
    assert [(row["reason"], row["source"]) for row in found] == [("opted_out", "signed")]


REFUSED: dict[str, tuple[Callable[[int], Reply], int, str]] = {
    "forged": (lambda p: post(p, [{"event": "a"}], signed="wrong"), 403, "not-believed"),
    "signed for another host": (
        lambda p: post(p, [], signed=f"http://127.0.0.1:{p}/v1/receipts/signed"),
        403,
        "not-believed",
    ),
    "unsigned": (lambda p: post(p, [{"event": "a"}], signed=None), 403, "not-believed"),
    "unreadable": (lambda p: post(p, b"{"), 400, "bad-request"),
    "unknown adapter": (lambda p: post(p, [], adapter="nobody"), 404, "not-found"),
    "an adapter without receipts": (lambda p: post(p, [], adapter="deaf"), 404, "not-found"),
    "not configured": (lambda p: post(p, [], adapter="unready"), 503, "not-configured"),
    "too large": (lambda p: post(p, b" " * 5_000_001), 413, "too-large"),
    "compressed": (lambda p: post(p, b"x", Content_Encoding="gzip"), 415, "wrong-content-type"),
    "another method": (
        lambda p: Client(p).get("/v1/receipts/signed"),
        405,
        "method-not-allowed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(api: Api, port: int, case: str) -> None:
    ask, status, kind = REFUSED[case]
    found = ask(port)
    assert (found.status, found.json["type"]) == (status, f"/problems/{kind}")
    assert found.headers["content-type"] == "application/problem+json"
    assert [api.count(t) for t in ("receipt", "receipt_event", "suppression")] == [0, 0, 0]


def test_a_large_array_is_read(api: Api, port: int) -> None:
    many = [{"event": f"event-{n:06d}", "padding": "x" * 100} for n in range(5_000)]
    assert post(port, many).status == 204
    assert api.count("receipt_event") == 5_000


def test_without_a_public_url_nothing_can_be_verified(api: Api) -> None:
    settings = api.services.settings.model_copy(update={"public_url": None})
    services = replace(door(api.services), settings=settings)
    with serving(create_app(services)) as port:
        found = post(port, [{"event": "a"}])
    assert (found.status, found.json["type"]) == (503, "/problems/not-configured")


class Counting(Signed):
    """Says when so many requests have been read."""

    def __init__(self, many: int) -> None:
        self._left = many
        self.all_came = threading.Event()

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        self._left -= 1
        if not self._left:
            self.all_came.set()
        return super().read(request, now=now)


def test_many_at_once_share_a_transaction_and_each_is_answered(api: Api) -> None:
    """The first to be written holds the door until all the others wait behind it."""
    adapter = Counting(40)
    sizes: list[int] = []

    def write(told: Any) -> None:
        assert adapter.all_came.wait(20)
        sizes.append(len(told))
        api.services.intake.write(told)

    adapters: dict[str, Any] = {"signed": adapter}
    services = replace(door(api.services, intake=Written(write)), adapters=adapters)
    with serving(create_app(services)) as port, ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(post, port, [{"event": f"e{n}"}]) for n in range(40)]
        assert {call.result().status for call in calls} == {204}
    assert sum(sizes) == 40
    assert len(sizes) <= 2
    assert api.count("receipt_event") == 40


class Written(Intake):
    """An intake that writes by other means."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._other = write

    def write(self, told: Any) -> None:
        self._other(told)


async def test_few_are_kept_waiting_for_others_and_enough_are_not() -> None:
    sizes: list[int] = []
    told = Told("signed", ReceiptRequest("POST", PUBLIC, {}, b""), Reading())
    together = Together(lambda group: sizes.append(len(group)), gather=3600.0)
    async with asyncio.timeout(20):
        few = [asyncio.create_task(together.keep(told)) for _ in range(ENOUGH - 1)]
        for _ in range(3):  # for them to come, and for who writes to begin to wait
            await asyncio.sleep(0)
        assert not any(task.done() for task in few)
        await together.keep(told)
        await asyncio.gather(*few)
    assert sizes == [ENOUGH]


async def test_one_alone_is_written_after_the_time_to_gather() -> None:
    sizes: list[int] = []
    told = Told("signed", ReceiptRequest("POST", PUBLIC, {}, b""), Reading())
    together = Together(lambda group: sizes.append(len(group)), gather=0.001)
    async with asyncio.timeout(20):
        await together.keep(told)
        await together.keep(told)
    assert sizes == [1, 1]


def test_adapters_and_wishes_that_come_together_stand_together(api: Api) -> None:
    """All or none, whichever way they are written."""

    def says(adapter: str, event: str, *, stop: bool = False) -> Told:
        consents = (Consent(event, "phone", "+12025550123", False, Reason.OPTED_OUT),)
        receipt = Receipt(event, KEY, "ref", ReceiptStatus.DELIVERED)
        reading = Reading((receipt,), consents if stop else ())
        return Told(adapter, ReceiptRequest("POST", PUBLIC, {}, b""), reading)

    intake = api.services.intake
    intake.write([says("one", "a"), says("two", "a")])
    intake.write([says("one", "b", stop=True), says("one", "c")])
    assert (api.count("receipt"), api.count("receipt_event")) == (3, 4)
    assert api.count("suppression") == 1
    for lost in ([says("one", "d"), says("\x00", "d")], [says("\x00", "e", stop=True)]):
        with pytest.raises(LedgerRefused):
            intake.write(lost)
    assert (api.count("receipt"), api.count("receipt_event")) == (3, 4)


def test_what_the_framework_would_count_is_counted(api: Api, port: int) -> None:
    post(port, [{"event": "a"}])
    figures = Client(port, api.key("read")).get("/metrics").body.decode()
    timed = 'dispatcher_http_request_seconds_count{method="POST",route="/v1/receipts/{adapter}"'
    assert f'{timed},status="204"}} 1.0' in figures


def test_one_that_the_database_never_takes_costs_no_other_its_place(api: Api) -> None:
    def write(told: list[Told]) -> None:
        # A name that no text column takes stands for whatever nobody foresaw.
        api.services.intake.write(
            [replace(t, adapter="\x00") if b"poison" in t.request.body else t for t in told]
        )

    app = create_app(door(api.services, intake=Written(write)))
    bodies = [[{"event": "poison"}], *([{"event": f"e{n}"}] for n in range(12))]
    with serving(app) as port, ThreadPoolExecutor(13) as pool:
        found = [call.result() for call in [pool.submit(post, port, body) for body in bodies]]
    assert [reply.status for reply in found] == [500] + [204] * 12
    assert api.count("receipt_event") == 12


def test_a_database_that_is_away_is_told_so_that_it_comes_again(api: Api) -> None:
    ledger = Ledger("postgresql://nobody@127.0.0.1:9/none", patience=0.2)
    intake = Intake(ledger, api.services.sealer, name=lambda: None, monotonic=lambda: 0.0)
    with serving(create_app(door(api.services, ledger=ledger, intake=intake))) as port:
        found = post(port, [{"event": "a"}])
        client = Client(port)
        assert client.get("/healthz").status == 200
    ledger.close()
    assert (found.status, found.headers["retry-after"]) == (503, "5")
    assert found.json["type"] == "/problems/database-away"


def test_figures_tell_what_came_and_logs_do_not(api: Api, port: int) -> None:
    with capture_logs() as logged:
        post(port, [{"event": "a"}])
        post(port, [{"event": "a"}], signed="wrong")
        post(port, [], adapter="n" * 50)
        api.services.receipts.work()
        figures = Client(port, api.key("read")).get("/metrics").body.decode()
    assert 'dispatcher_receipt_requests_total{adapter="signed",result="kept"} 1.0' in figures
    assert 'dispatcher_receipt_requests_total{adapter="signed",result="forged"} 1.0' in figures
    assert 'result="unknown_adapter"} 1.0' in figures
    assert 'dispatcher_receipt_events_total{adapter="signed",result="unmatched"} 1.0' in figures
    assert "dispatcher_receipts_waiting 0.0" in figures
    assert "nnnnn" not in figures + str(logged)
    assert [line for line in logged if line["event"] == "http.request"] == []
