"""Test sends: marked, once, to nobody but who asked, and counted nowhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import httpx
import orjson
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    Envelope,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reason,
    RecipientRefused,
    Slot,
    TryLater,
    Unit,
    Unknown,
)
from channels.inbox_push import InboxPush
from channels.sandbox import credentials
from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import running
from channels.sendgrid_email import SendgridEmail
from channels.transport import CurlTransport
from channels.twilio_sms import TwilioSms
from dispatcher.acts import Conflict
from dispatcher.delivery.batches import Speed
from dispatcher.delivery.pacing import Pace, Pacing
from dispatcher.delivery.trials import BUSY, LATE, LOST, TrialSending, close_cut_off, told
from dispatcher.ledger import inbox, people, suppressions, trials
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.inbox import LedgerInbox
from dispatcher.ledger.trials import TrialRow
from dispatcher.planning import Route
from dispatcher.security.rights import Role
from dispatcher.security.sealing import Sealer
from dispatcher.trials import MOST, TrialMessage, Trials, marked
from tests.dispatcher.test_engine import made

Answer = Callable[[Envelope], Outcome | None]
PHONE = "+12025550123"
MAIL = "ada@mail.example.com"
SMS = TrialMessage("consumers", "sms", "en", {"text": "NVW: voice is down."})
MAIL_PAGE = '<html><body class="page" dir="ltr"><p>Hello [[name]]</p></body></html>'
EMAIL = TrialMessage(
    "consumers",
    "email",
    "en",
    {"subject": "Voice is down", "text": "Hello [[name]]", "html": MAIL_PAGE},
    {"name": Slot(max_chars=80)},
)
PUSH = TrialMessage("consumers", "push", "en", {"title": "Voice is down", "body": "Use Wi-Fi."})


@dataclass
class Scripted:
    """Answers as told; None is a bug of the adapter."""

    answer: Answer = lambda envelope: Accepted(envelope.key, "ref")
    seen: list[tuple[Message, Envelope]] = field(default_factory=list)
    before: Callable[[], Any] | None = None
    name: ClassVar[str] = "scripted"
    channel: ClassVar[str] = "sms"
    accepts: ClassVar[str] = "phone"
    parts: ClassVar[tuple[str, ...]] = ("text",)
    limits: ClassVar[Limits] = Limits(unit=Unit.MESSAGE)

    def check(self, message: Message) -> list[Problem]:
        return []

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        self.seen += [(message, envelope) for envelope in envelopes]
        if self.before is not None:
            await self.before()
        for envelope in envelopes:
            outcome = self.answer(envelope)
            if outcome is None:
                raise ValueError(f"cannot send to {envelope.address}")
            yield outcome


def alone() -> Pacing:
    """Nobody answers there: a worker alone paces itself, which is fast enough here."""
    return Pacing(Redis(port=1, retry=Retry(NoBackoff(), 0)), monotonic=time.monotonic)


@dataclass(frozen=True)
class Room:
    """A person with addresses of their own, and an update that is being sent to five others."""

    ledger: Ledger
    sealer: Sealer
    update: str
    person: str
    named: list[str] = field(default_factory=list)

    def asking(self, *, drills: bool = True) -> Trials:
        served = [("sms", "phone"), ("email", "email"), ("push", "inbox"), ("social", "x_account")]
        routes = [Route(f"{channel}_{kind}", channel, kind) for channel, kind in served]
        return Trials(routes=routes, drill_routes=routes if drills else [], name=self.named.append)

    def ask(
        self, message: TrialMessage = SMS, kind: str = "phone", address: str = PHONE, **more: Any
    ) -> str:
        asking: Trials = more.pop("asking", None) or self.asking()
        given = {"person_id": self.person, "update_id": self.update, "drill": False, **more}
        sealed = people.sealed_address(self.sealer, given["person_id"], kind=kind, address=address)
        with self.ledger.transaction() as work:
            return asking.ask(work, message=message, kind=kind, sealed=sealed, hint="…23", **given)

    def worker(
        self,
        *adapters: Any,
        drill_adapters: Sequence[Any] = (),
        sender: str | None = "72345",
        rate: float = 100_000.0,
        patience: float = 5.0,
        pacing: Pacing | None = None,
    ) -> TrialSending:
        return TrialSending(
            self.ledger,
            self.sealer,
            pacing or alone(),
            adapters={adapter.name: cast(Adapter, adapter) for adapter in adapters},
            drill_adapters={adapter.name: cast(Adapter, adapter) for adapter in drill_adapters},
            sender=lambda channel, country: sender,
            speed=lambda channel, sender: Speed(rate),
            patience=patience,
        )

    def rows(self) -> list[TrialRow]:
        with self.ledger.read() as conn:
            return trials.of(conn, self.update, self.person)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.ledger.read() as conn:
            cursor = conn.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def counted(self) -> list[list[tuple[Any, ...]]]:
        """All that an update's progress is made of."""
        return [
            self.sql("SELECT pending, sending, accepted, failed, unknown, skipped FROM batch"),
            self.sql("SELECT id, state, reason, attempts FROM delivery ORDER BY id"),
            self.sql("SELECT count(*) FROM attempt"),
            self.sql("SELECT count(*) FROM doubt"),
            self.sql("SELECT count(*) FROM planned"),
        ]


@pytest.fixture
def room(ledger: Ledger, sealer: Sealer) -> Room:
    desk = made(ledger, sealer, people=5)
    with ledger.transaction() as work:
        person = people.create(work.conn, name="Ada O'Neill", role=Role.AUTHOR, created_by="x")
    return Room(ledger, sealer, desk.update, person.id)


async def test_every_channel_reaches_the_simulators_with_its_mark(room: Room) -> None:
    """What arrives is the message with its mark, its slot filled with the person's own name."""
    async with running(SandboxConfig(port=0)) as sandbox:
        transport = CurlTransport()
        sms = TwilioSms(
            TwilioSms.Settings(
                account_sid=credentials.TWILIO_ACCOUNT_SID,
                auth_token=credentials.TWILIO_AUTH_TOKEN,
                base_url=sandbox.url,
            ),
            transport,
        )
        email = SendgridEmail(
            SendgridEmail.Settings(
                api_key=credentials.SENDGRID_API_KEY,
                from_email=credentials.SENDGRID_FROM,
                base_url=sandbox.url,
            ),
            transport,
        )
        app = InboxPush(
            InboxPush.Settings(), transport, inbox=LedgerInbox(room.ledger, room.sealer)
        )
        texts = room.worker(sms, app)
        mails = room.worker(email, sender=f"Northvale <{credentials.SENDGRID_FROM}>")
        assert await texts.try_out(room.ask())
        assert await mails.try_out(room.ask(EMAIL, "email", MAIL))
        assert await texts.try_out(room.ask(PUSH, "inbox", "ada-app"))
        async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as http:
            lines = (await http.get("/_sandbox/outbox")).text.splitlines()
    by_provider = {one["provider"]: one for one in map(orjson.loads, lines)}
    text, mail = by_provider["twilio"], by_provider["sendgrid"]
    assert (text["address"], text["sender"]) == (PHONE, "72345")
    assert text["content"]["text"] == "TEST: NVW: voice is down."
    assert (mail["address"], mail["content"]["subject"]) == (MAIL, "TEST: Voice is down")
    assert mail["content"]["text"] == "TEST: Hello Ada O'Neill"
    assert "TEST: this message was sent to nobody but you." in mail["content"]["html"]
    assert "Hello Ada O&#x27;Neill" in mail["content"]["html"]
    with room.ledger.read() as conn:
        seen = inbox.after(conn, room.sealer.lookup("inbox", "ada-app"))
    assert [(one.title, one.body) for one in seen] == [("TEST: Voice is down", "Use Wi-Fi.")]
    assert [row.outcome for row in room.rows()] == ["accepted"] * 3
    assert [row.channel for row in room.rows()] == ["push", "email", "sms"]


def test_the_mark_stands_first_in_every_part_that_is_seen() -> None:
    parts = {"subject": "s", "text": "t", "html": "<BODY dir=rtl><p>t</p></BODY>"}
    assert marked(parts)["subject"] == "TEST: s"
    assert marked(parts)["text"] == "TEST: t"
    assert marked(parts)["html"].index("TEST: ") > len("<BODY dir=rtl>")
    assert marked(parts)["html"].index("TEST: ") < marked(parts)["html"].index("<p>t</p>")
    assert marked({"title": "t", "body": "b"}) == {"title": "TEST: t", "body": "b"}


async def test_nothing_of_a_trial_counts_into_an_update(room: Room) -> None:
    before = room.counted()
    answers: list[Answer] = [
        lambda e: Accepted(e.key, "ref"),
        lambda e: RecipientRefused(e.key, Reason.OPTED_OUT),
        lambda e: Unknown(e.key, Reason.TIMEOUT),
        lambda e: AdapterBroken(e.key, Reason.CREDENTIALS),
    ]
    for answer in answers:
        assert await room.worker(Scripted(answer)).try_out(room.ask())
    assert room.counted() == before
    assert room.sql("SELECT count(*) FROM breaker") == [(0,)]
    assert room.sql("SELECT count(*) FROM suppression") == [(0,)]


async def test_a_task_named_twice_sends_once(room: Room) -> None:
    adapter = Scripted(before=lambda: asyncio.sleep(0.05))
    worker, other = room.worker(adapter), room.worker(adapter)
    trial = room.ask()
    did = await asyncio.gather(worker.try_out(trial), worker.try_out(trial), other.try_out(trial))
    assert sorted(did) == [False, False, True]
    assert not await worker.try_out(trial)
    assert len(adapter.seen) == 1
    assert [(row.state, row.outcome) for row in room.rows()] == [("done", "accepted")]


async def test_what_a_worker_left_behind_is_unknown_and_never_sent_again(room: Room) -> None:
    """It dies between the request and the record; the provider has the message."""
    never, left = asyncio.Event(), asyncio.Event()

    async def before() -> None:
        left.set()
        await never.wait()

    dying = Scripted(before=before)
    trial = room.ask()
    sending = asyncio.create_task(room.worker(dying).try_out(trial))
    await left.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert [row.state for row in room.rows()] == ["sending"]
    close_cut_off(room.ledger, room.named.append)
    assert [row.state for row in room.rows()] == ["sending"], "its worker may still be at it"
    room.sql("UPDATE trial SET taken_at = now() - interval '3 minutes'")
    close_cut_off(room.ledger, room.named.append)
    assert [(r.state, r.outcome, r.reason) for r in room.rows()] == [("done", "unknown", LOST)]
    assert room.named == [trial], "asked for once, and not named again"
    adapter = Scripted()
    assert not await room.worker(adapter).try_out(trial)
    assert adapter.seen == []


async def test_a_late_answer_is_better_than_unknown(room: Room) -> None:
    trial = room.ask()

    async def lost() -> None:
        room.sql("UPDATE trial SET taken_at = now() - interval '3 minutes'")
        close_cut_off(room.ledger, room.named.append)

    assert await room.worker(Scripted(before=lost)).try_out(trial)
    assert [row.outcome for row in room.rows()] == ["accepted"]


async def test_a_bug_of_the_adapter_is_in_doubt_and_tells_no_address(
    room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await room.worker(Scripted(lambda envelope: None)).try_out(room.ask())
    assert [row.outcome for row in room.rows()] == ["unknown"]
    assert PHONE not in "".join(capsys.readouterr())


async def test_a_drill_goes_to_drill_adapters_only(room: Room) -> None:
    real, simulator = Scripted(), Scripted()
    trial = room.ask(drill=True)
    assert await room.worker(real, drill_adapters=[simulator]).try_out(trial)
    assert (len(real.seen), len(simulator.seen)) == (0, 1)
    with pytest.raises(Conflict, match="simulators only"):
        room.ask(drill=True, asking=room.asking(drills=False))
    other = room.ask(drill=True)
    assert not await room.worker(real).try_out(other)
    assert real.seen == []


async def test_nobody_is_written_to_who_wants_nothing(room: Room) -> None:
    with room.ledger.transaction() as work:
        suppressions.add(
            work.conn,
            kind="phone",
            lookup=room.sealer.lookup("phone", PHONE),
            hint="…23",
            reason="opted_out",
            source="x",
        )
    adapter = Scripted()
    assert not await room.worker(adapter).try_out(room.ask())
    assert adapter.seen == []
    assert [(row.outcome, "opted out" in row.reason) for row in room.rows()] == [("not_sent", True)]


async def test_a_closed_way_is_not_tried(room: Room) -> None:
    room.sql(
        "INSERT INTO breaker (adapter, sender, reason, detail, opened_at, probe_at)"
        " VALUES ('scripted', '72345', 'credentials', '', now(), now())"
    )
    adapter = Scripted()
    assert not await room.worker(adapter).try_out(room.ask())
    assert adapter.seen == []
    assert "credentials" in room.rows()[0].reason


async def test_what_cannot_be_sent_says_why(room: Room) -> None:
    assert not await room.worker(Scripted(), sender=None).try_out(room.ask())
    assert "No sender" in room.rows()[0].reason
    assert not await room.worker().try_out(room.ask())
    assert "No account" in room.rows()[0].reason
    short = replace(SMS, parts={"text": "[[name]]"}, slots={"name": Slot(max_chars=3)})
    assert not await room.worker(Scripted()).try_out(room.ask(short))
    assert "Your name" in room.rows()[0].reason
    trial = room.ask()
    room.sql("UPDATE trial SET sealed = '\\x00' WHERE state = 'waiting'")
    assert not await room.worker(Scripted()).try_out(trial)
    assert "enter it anew" in room.rows()[0].reason
    assert {row.outcome for row in room.rows()} == {"not_sent"}


async def test_somebody_elses_address_does_not_open(room: Room) -> None:
    """A row whose sealed address was swapped for another person's is refused."""
    with room.ledger.transaction() as work:
        other = people.create(work.conn, name="Bo", role=Role.AUTHOR, created_by="x")
    trial = room.ask()
    theirs = people.sealed_address(room.sealer, other.id, kind="phone", address="+12025550199")
    room.sql("UPDATE trial SET sealed = %s", theirs)
    adapter = Scripted()
    assert not await room.worker(adapter).try_out(trial)
    assert adapter.seen == []


async def test_a_busy_sender_is_waited_for_only_so_long(room: Room) -> None:
    """Somebody else has the sender's only moment for a long while: nothing leaves."""
    adapter, pacing = Scripted(), alone()
    taken = await pacing.take(Pace("scripted:72345", 0.01), 1, urgent=True)
    assert taken.count == 1
    worker = room.worker(adapter, rate=0.01, patience=0.05, pacing=pacing)
    assert not await worker.try_out(room.ask())
    assert adapter.seen == []
    assert [(row.outcome, row.reason) for row in room.rows()] == [("not_sent", BUSY)]


def test_what_may_not_be_asked_for_leaves_no_row(room: Room) -> None:
    post = TrialMessage("public", "social", "en", {"text": "Down"})
    with pytest.raises(Conflict, match="public"):
        room.ask(post, "x_account", "northvale")
    with pytest.raises(Conflict, match="address of this kind"):
        room.ask(SMS, "email", MAIL)
    with pytest.raises(Conflict, match="No account is set up that sends by push"):
        room.ask(PUSH, "fcm_token", "t")
    assert room.rows() == []
    assert room.named == []


def test_ten_in_ten_minutes_and_no_more(room: Room) -> None:
    for _ in range(MOST):
        room.ask()
    with pytest.raises(Conflict) as refused:
        room.ask()
    assert refused.value.code == "too-many-trials"
    assert len(room.named) == len(room.rows()) == MOST
    room.sql("UPDATE trial SET created_at = now() - interval '11 minutes'")
    room.ask()


async def test_the_limit_holds_for_wishes_at_the_same_moment(room: Room) -> None:
    def ask() -> bool:
        try:
            room.ask()
        except Conflict:
            return False
        return True

    asked = await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(MOST + 4)))
    assert asked.count(True) == MOST


def test_a_wish_is_named_after_its_commit_only(room: Room) -> None:
    sealed = people.sealed_address(room.sealer, room.person, kind="phone", address=PHONE)
    with pytest.raises(RuntimeError), room.ledger.transaction() as work:
        room.asking().ask(
            work,
            person_id=room.person,
            update_id=room.update,
            message=SMS,
            kind="phone",
            sealed=sealed,
            hint="…23",
            drill=False,
        )
        raise RuntimeError("rolled back")
    assert (room.named, room.rows()) == ([], [])
    trial = room.ask()
    assert room.named == [trial]
    acts = room.sql("SELECT actor, act, detail::text FROM audit WHERE act = 'trial.ask'")
    assert [(actor, act) for actor, act, _ in acts] == [(f"person:{room.person}", "trial.ask")]
    assert PHONE not in acts[0][2] and "Ada" not in acts[0][2]


async def test_one_that_no_worker_heard_of_is_named_again_and_then_given_up(room: Room) -> None:
    trial = room.ask()
    close_cut_off(room.ledger, room.named.append)
    assert room.named == [trial], "a worker has only just been told"
    room.sql("UPDATE trial SET created_at = now() - interval '20 seconds'")
    close_cut_off(room.ledger, room.named.append)
    assert room.named == [trial, trial]
    room.sql("UPDATE trial SET created_at = now() - interval '11 minutes'")
    adapter = Scripted()
    assert not await room.worker(adapter).try_out(trial)
    close_cut_off(room.ledger, room.named.append)
    assert (adapter.seen, room.named) == ([], [trial, trial])
    assert [(row.outcome, row.reason) for row in room.rows()] == [("not_sent", LATE)]


async def test_no_such_trial_is_nothing(room: Room) -> None:
    for name in ("", "x", "0190a000-0000-7000-8000-000000000042"):
        assert not await room.worker(Scripted()).try_out(name)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_told_in_words(reason: Reason) -> None:
    """No code, no provider's own words: what a person reads is a sentence."""
    outcomes: list[Outcome] = [
        Accepted("k", "r"),
        TryLater("k", reason, detail="21610 +1202"),
        MessageRefused("k", reason, detail="21610 +1202"),
        RecipientRefused("k", reason, detail="21610 +1202"),
        AdapterBroken("k", reason, detail="21610 +1202"),
        Unknown("k", reason, detail="21610 +1202"),
    ]
    for outcome in outcomes:
        word, words = told(outcome)
        assert word and words.endswith(".") and words[0].isupper()
        assert "21610" not in words
