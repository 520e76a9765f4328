"""What was known when and said when; promises, curves and scores, by their plain rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.audiences import Audience
from dispatcher.audiences.values import Lane, Reach, Scope
from dispatcher.console.views import lasting
from dispatcher.incidents import Fact, Incident
from dispatcher.ledger.accounts import Act, Stretch, Told
from dispatcher.ledger.updates import ReleaseRow, UpdateRow
from dispatcher.recount import (
    Kind,
    Story,
    fact_title,
    fact_words,
    minutes,
    promises,
    said,
    timeline,
)
from dispatcher.scoring import Headcount, curves, score, told_by, waits

OPENED = datetime(2026, 1, 2, 9, 0, tzinfo=UTC)


def at(minute: float) -> datetime:
    return OPENED + timedelta(minutes=minute)


def clock(moment: datetime) -> str:
    return moment.strftime("%H:%M")


INCIDENT = Incident.model_validate(
    {
        "id": "i",
        "number": 7,
        "title": "Down",
        "summary": "",
        "severity": "major",
        "services": ("voice",),
        "regions": (),
        "started_at": at(-10),
        "zone": None,
        "drill": True,
        "status": "open",
        "created_at": OPENED,
    }
)


def update(id: str, minute: float, **more: Any) -> UpdateRow:
    given: dict[str, Any] = {
        "id": id,
        "incident_id": "i",
        "phase": "investigating",
        "texts": {},
        "next_update_at": None,
        "expires_at": None,
        "audiences": ["media", "consumers"],
        "withdraws": [],
        "author": "person:ann",
        "release_on_approval": True,
        "created_at": at(minute),
        "submitted_at": at(minute),
        "content_hash": "h",
        "withdrawn_at": None,
        "revision": 1,
        "editors": [],
        "revised_at": None,
    }
    return UpdateRow(**(given | more))


def release(audience: str, **more: Any) -> ReleaseRow:
    given: dict[str, Any] = dict.fromkeys(
        (
            "approved_by", "approved_at", "released_by", "released_at", "planned_at", "stopped_by",
            "stopped_at", "returned_by", "returned_at",
        )
    )  # fmt: skip
    given |= {"lane": "bulk", "state": "released", "preapproved": True, "reason": ""}
    return ReleaseRow(audience=audience, **(given | more))


def told(id: str, audience: str, first: float, last: float, **more: Any) -> Told:
    given: dict[str, Any] = {
        "channel": "sms", "planned": 10, "told": 10, "failed": 0, "doubt": 0
    }  # fmt: skip
    given |= more
    return Told(update_id=id, audience=audience, first_at=at(first), last_at=at(last), **given)


def fact(id: str, kind: str, known: float, *, by: str = "u1", **more: Any) -> Fact:
    stated = {"kind": kind, "source": "NOC", "known_at": at(known)} | more
    return Fact.model_validate(
        {"id": id, "stated": stated, "update_id": by, "withdrawn_by": more.pop("gone", None)}
    )


def story(
    *updates: UpdateRow,
    told: Sequence[Told] = (),
    facts: Sequence[Fact] = (),
    acts: Sequence[Act] = (),
    releases: Mapping[str, Sequence[ReleaseRow]] | None = None,
    incident: Incident = INCIDENT,
) -> Story:
    return Story(
        incident, list(updates), list(facts), releases or {}, acts, told, {"person:ann": "Ann"}
    )


def titles(given: Story, *, now: datetime = at(600), audience: str | None = None) -> list[str]:
    return [each.title for each in timeline(given, now=now, clock=clock, audience=audience)]


# --- the timeline -----------------------------------------------------------------------


def test_everything_stands_in_the_order_it_happened() -> None:
    given = story(
        update("u1", 5),
        update("u2", 40, phase="correction"),
        facts=[
            Fact.model_validate(
                {
                    "id": "f",
                    "stated": {
                        "kind": "cause",
                        "value": {"code": "hardware"},
                        "confidence": "believed",
                        "source": "NOC",
                        "known_at": at(2),
                    },
                    "update_id": "u1",
                    "withdrawn_by": "u2",
                }
            )
        ],
        acts=[
            Act(at(0), "person:ann", "incident.open", None, {"reference": "INC-0007"}),
            Act(at(6), "key:x", "update.approve", "u1", {"audiences": ["media"]}),
            Act(at(8), "owner", "release.break_glass", "u1", {"audiences": ["consumers"]}),
            Act(at(12), "person:ann", "update.stop", "u1",
                {"audiences": ["consumers"], "saved": 4000, "left": 12}),
        ],
        told=[told("u1", "media", 7, 11), told("u1", "consumers", 9, 10)],
    )  # fmt: skip
    entries = timeline(given, now=at(60), clock=clock)
    assert [(each.title, each.kind) for each in entries] == [
        ("Incident opened", Kind.DESK),
        ("Known: Cause, believed", Kind.KNOWN),
        ("Approved: update 1 (investigating)", Kind.APPROVED),
        ("First told: update 1 (investigating)", Kind.SAID),
        ("Break-glass: update 1 (investigating) released without approval", Kind.ALARM),
        ("First told: update 1 (investigating)", Kind.SAID),
        ("Last one told: update 1 (investigating)", Kind.SAID_LAST),
        ("Last one told: update 1 (investigating)", Kind.SAID_LAST),
        ("Stopped: update 1 (investigating)", Kind.STOPPED),
        ("Taken back: Cause, believed", Kind.TAKEN_BACK),
    ]
    assert [each.at for each in entries] == sorted(each.at for each in entries)
    assert entries[0].who == "Ann"
    assert entries[1].detail == ("hardware", "Source: NOC", "Stated in update 1 (investigating)")
    assert entries[4].who == "the machine's owner"
    assert entries[8].detail == ("4,000 messages were held back, 12 had left",)


def test_one_audience_sees_what_concerns_it_and_what_concerns_all() -> None:
    given = story(
        update("u1", 5),
        acts=[
            Act(at(0), "person:ann", "incident.open", None, {}),
            Act(at(1), "person:ann", "update.create", "u1", {"audiences": ["media"]}),
            Act(at(6), "person:ann", "update.approve", "u1", {"audiences": ["media"]}),
        ],
        told=[told("u1", "media", 7, 7), told("u1", "consumers", 9, 9)],
    )
    assert titles(given, audience="consumers") == [
        "Incident opened",
        "Written: update 1 (investigating)",
        "First told: update 1 (investigating)",
    ]


def test_claims_and_reasons_are_told_with_their_act() -> None:
    given = story(
        update("u1", 5),
        acts=[
            Act(at(6), "person:ann", "update.vouch", "u1", {"claims": ["emergency_calls_work"]}),
            Act(at(7), "person:ann", "update.return", "u1",
                {"audiences": ["media"], "reason": "Too long"}),
        ],
    )  # fmt: skip
    vouched, returned = timeline(given, now=at(8), clock=clock)
    assert vouched.detail == ("Confirmed by a second owner: emergency calls work",)
    assert (returned.kind, returned.detail) == (Kind.RETURNED, ("Reason: Too long",))


def test_doubts_that_one_person_settles_in_a_minute_are_one_entry() -> None:
    acts = [
        Act(
            at(6) + timedelta(seconds=n),
            "person:ann",
            "deliveries.settle",
            "u1",
            {"state": "failed"},
        )
        for n in range(30)
    ]
    (entry,) = timeline(story(update("u1", 5), acts=acts), now=at(8), clock=clock)
    assert entry.detail == ("30 settled",)


def test_a_resolved_incident_ends() -> None:
    over = INCIDENT.model_copy(update={"status": "resolved", "resolved_at": at(90)})
    assert titles(story(incident=over)) == ["Incident resolved"]


@pytest.mark.parametrize(
    ("kind", "value", "confidence", "title", "words"),
    [
        ("started", {"at": at(0)}, "confirmed", "Started, confirmed", "09:00"),
        ("eta", {"at": at(30), "latest": at(60)}, "believed", "Expected back, believed", "09:30 to 10:00"),
        ("scope", {"count": 74000, "basis": "estimated"}, "under_review", "How many, under review", "74,000 (estimated)"),
        ("not_cause", {"code": "cyberattack"}, "confirmed", "Not the cause, confirmed", "cyberattack"),
        ("emergency_calls", {"status": "not_working", "use": ["wifi_calling"]}, "confirmed",
         "Emergency calls, confirmed", "not working; use wifi calling"),
        ("restored", {"percent": 60}, "confirmed", "Service back, confirmed", "60%"),
        ("compensation", {"amount": "5.00", "currency": "USD", "automatic": True,
          "within_billing_cycles": 2, "eligible": ["consumer"], "not_eligible": ["prepaid"]},
         "confirmed", "Credit, confirmed",
         "5.00 USD per account, automatic, within 2 billing cycles; for consumer; not for prepaid"),
        ("apology", {"to_all": False}, "confirmed", "Apology, confirmed", "to those affected"),
        ("next_step", {"code": "publish_report", "by": at(60)}, "confirmed", "Next step, confirmed",
         "publish report by 10:00"),
        ("workaround", {"codes": ["landline", "satellite"]}, "confirmed",
         "Other ways to get service, confirmed", "landline, satellite"),
    ],
)  # fmt: skip
def test_a_fact_in_words(kind: str, value: Any, confidence: str, title: str, words: str) -> None:
    stated = fact("f", kind, 0, value=value, confidence=confidence).stated
    assert (fact_title(stated), fact_words(stated, clock)) == (title, words)


def test_what_was_said_is_of_all_channels_and_only_what_was_accepted() -> None:
    (one,) = said(
        [
            told("u1", "media", 7, 9),
            told("u1", "media", 5, 8, channel="email", planned=4, told=3),
            replace(told("u1", "consumers", 1, 1), first_at=None, last_at=None, told=0),
        ]
    )
    assert (one.planned, one.told, one.first_at, one.last_at) == (14, 13, at(5), at(9))
    assert one.channels == (("sms", 10), ("email", 3))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "under a second"),
        (0.6, "under a second"),
        (45, "45 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (93600, "1 d 2 h"),
    ],
)
def test_a_span_in_words(seconds: float, words: str) -> None:
    assert minutes(timedelta(seconds=seconds)) == words
    # A page has spans by both: one wording.
    assert lasting(seconds) == words


# --- promises ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("next_word", "now", "kept", "late"),
    [
        (29, 60, True, None),
        (30, 60, True, None),
        (34, 60, False, 4),
        (None, 20, None, None),
        (None, 31, False, None),
    ],
)
def test_a_promise_is_kept_by_the_next_word_in_time(
    next_word: float | None, now: float, kept: bool | None, late: float | None
) -> None:
    rows = [told("u1", "media", 7, 8)]
    if next_word is not None:
        rows.append(told("u2", "media", next_word, next_word))
    given = story(update("u1", 5, next_update_at=at(30)), update("u2", 20), told=rows)
    (promise,) = promises(given, now=at(now))
    assert promise.kept is kept
    assert promise.late == (None if late is None else timedelta(minutes=late))


def test_a_promise_that_was_missed_is_an_alarm_of_its_audience() -> None:
    given = story(
        update("u1", 5, next_update_at=at(30)),
        update("u2", 20),
        told=[
            told("u1", "media", 7, 7),
            told("u1", "consumers", 7, 7),
            told("u2", "media", 28, 28),
        ],
    )
    alarms = [each for each in timeline(given, now=at(50), clock=clock) if each.kind is Kind.ALARM]
    assert [(each.at, each.audiences, each.detail) for each in alarms] == [
        (at(30), ("consumers",), ("Still missing",))
    ]


# --- curves -----------------------------------------------------------------------------


def stretch(first: float, last: float, number: int, **more: str) -> Stretch:
    given = {"update_id": "u1", "audience": "media", "channel": "sms"} | more
    return Stretch(first_at=at(first), last_at=at(last), told=number, **given)


def test_a_stretch_is_even() -> None:
    rows = [stretch(0, 10, 100), stretch(4, 4, 5)]
    assert [told_by(rows, at(minute)) for minute in (0, 4, 5, 10, 20)] == [0, 45, 55, 105, 105]


@pytest.mark.parametrize(
    "rows",
    [
        [stretch(0, 60, 600)],
        [stretch(0, 0, 7), stretch(60, 60, 5)],
        [stretch(3.3, 3.9, 10), stretch(17, 59.99, 1_000), stretch(30, 30, 1)],
    ],
)
def test_a_curve_rises_to_all_that_was_told_and_lies_on_the_stretches(rows: list[Stretch]) -> None:
    (curve,) = curves(rows, by="audience", start=at(0), end=at(60), steps=60)
    assert curve.total == curve.points[-1] == sum(row.told for row in rows)
    assert list(curve.points) == sorted(curve.points)
    for minute in range(61):
        assert abs(curve.points[minute] - told_by(rows, at(minute))) <= max(
            1.0, max(row.told for row in rows if row.first_at <= at(minute) <= row.last_at)
            if any(row.first_at == row.last_at == at(minute) for row in rows) else 1.0,
        )  # fmt: skip


def test_curves_by_audience_and_by_channel_the_largest_first() -> None:
    rows = [
        stretch(0, 10, 5),
        stretch(0, 10, 50, audience="consumers", channel="push"),
        stretch(5, 6, 10, audience="consumers"),
    ]
    by_audience = curves(rows, by="audience", start=at(0), end=at(10))
    assert [(each.name, each.total) for each in by_audience] == [("consumers", 60), ("media", 5)]
    by_channel = curves(rows, by="channel", start=at(0), end=at(10))
    assert [(each.name, each.total) for each in by_channel] == [("push", 50), ("sms", 15)]


# --- the score --------------------------------------------------------------------------

MEDIA = Audience(
    name="media",
    title="Media",
    segments=(),
    tags=(),
    rank=1,
    scope=Scope.EVERYONE,
    lane=Lane.NORMAL,
    channels=(),
    reach=Reach.ALL,
    start_by=timedelta(minutes=10),
    preapproved=frozenset(),
    cadence=timedelta(minutes=30),
    reach_by=timedelta(minutes=20),
    quiet_hours=None,
    locales=("en",),
    required={},
)
NO_RULES = replace(MEDIA, start_by=None, cadence=None, reach_by=None)


@pytest.mark.parametrize(
    ("rule", "last", "second", "people", "total", "missed"),
    [
        # Everything in time: first word 8 min after opening, 3 min after release.
        (MEDIA, 20, 35, Headcount(10, 10), 100, 0),
        # Half of the first update came after the twenty minutes: 20 of 40.
        (MEDIA, 32, 35, Headcount(10, 10), 80, 1),
        # Half of the people were not told: 15 of 30; who was left out does not count.
        (MEDIA, 20, 35, Headcount(12, 5, left_out=2), 85, 0),
        # The second word came after 52 min instead of 30: one of two clocks, 15 of 30.
        (MEDIA, 20, 60, Headcount(10, 10), 85, 1),
        # Without a rule only the people count.
        (NO_RULES, 20, 60, Headcount(10, 9), 90, 0),
        # People not counted yet: the rest is taken as the whole.
        (MEDIA, 20, 60, None, 79, 1),
        (NO_RULES, 20, 60, None, None, 0),
    ],
)
def test_a_score_is_the_sum_of_plain_parts(
    rule: Audience,
    last: float,
    second: float,
    people: Headcount | None,
    total: int | None,
    missed: int,
) -> None:
    given = story(
        update("u1", 2, audiences=["media"]),
        update("u2", 30, audiences=["media"]),
        told=[told("u1", "media", 8, last), told("u2", "media", second, second)],
        releases={"u1": [release("media", released_at=at(5), planned_at=at(5))]},
    )
    rows = [stretch(8, last, 10), stretch(second, second, 10, update_id="u2")]
    (found,) = score(
        given,
        {"media": rule},
        rows,
        {} if people is None else {"media": people},
        now=at(second + 5),
    )
    assert (found.total, found.missed) == (total, missed)
    assert found.first_word == timedelta(minutes=8)


def test_who_was_never_told_scores_nothing_and_misses_the_clock() -> None:
    given = story(update("u1", 2, audiences=["media"]))
    (found,) = score(given, {"media": MEDIA}, [], {}, now=at(25))
    assert (found.total, found.missed, found.first_word) == (0, 1, None)
    (early,) = score(given, {"media": MEDIA}, [], {}, now=at(15))
    assert early.missed == 0


def test_an_audience_with_nobody_in_it_is_not_scored() -> None:
    given = story(
        update("u1", 2, audiences=["media"]),
        releases={"u1": [release("media", released_at=at(5), planned_at=at(6))]},
    )
    (found,) = score(given, {"media": MEDIA}, [], {}, now=at(60))
    assert (found.total, found.checks) == (None, ())


def test_silence_at_the_end_counts_until_the_incident_is_resolved() -> None:
    given = story(
        update("u1", 2, audiences=["media"]),
        told=[told("u1", "media", 8, 9)],
        releases={"u1": [release("media", released_at=at(5), planned_at=at(5))]},
    )

    def silences(over: Incident, now: float) -> int:
        (found,) = score(
            replace(given, incident=over), {"media": MEDIA}, [stretch(8, 9, 10)], {}, now=at(now)
        )
        return sum(check.name == "Silence at the end" for check in found.checks)

    resolved = INCIDENT.model_copy(update={"status": "resolved", "resolved_at": at(30)})
    assert (silences(INCIDENT, 30), silences(INCIDENT, 50), silences(resolved, 50)) == (0, 1, 0)


def test_an_audience_that_no_update_was_for_has_no_score() -> None:
    given = story(update("u1", 2, audiences=["consumers"]))
    assert score(given, {"media": MEDIA}, [], {}, now=at(5)) == ()


def test_how_long_updates_waited_for_the_second_person() -> None:
    given = story(
        update("u1", 2),
        releases={
            "u1": [
                release("consumers", released_at=at(2)),
                release("investors", preapproved=False, released_at=at(9)),
                release("media", preapproved=False, approved_at=at(6), released_at=at(6)),
            ]
        },
    )
    assert [(each.audience, each.took, each.forced) for each in waits(given)] == [
        ("investors", timedelta(minutes=7), True),
        ("media", timedelta(minutes=4), False),
    ]
