"""What an account afterwards is made from; and whom a correction would go to."""

from datetime import timedelta

from dispatcher.ledger import accounts, audit
from dispatcher.ledger.connection import Ledger
from tests.dispatcher.ledger.crowded import Said, Some, opened, told

CAUSE, SCOPE = "0190c8f2-0000-7000-8000-00000000000a", "0190c8f2-0000-7000-8000-00000000000b"


def test_what_was_told_is_summed_by_update_audience_and_channel(ledger: Ledger) -> None:
    incident = opened(ledger)
    update = told(
        ledger,
        incident,
        Said(
            [
                Some("media", "sms", "accepted", 1, 250),
                Some("media", "sms", "delivered", 251, 260),
                Some("media", "sms", "failed", 261, 264, "content"),
                Some("media", "email", "unknown", 1, 3, "timeout"),
            ]
        ),
    )
    told(ledger, opened(ledger), Said([Some("media", "sms", "accepted", 1, 5)]))
    with ledger.read() as conn:
        mail, sms = accounts.told(conn, incident)
        stretches = accounts.stretches(conn, incident)
    assert (mail.update_id, mail.channel, mail.told, mail.doubt) == (update, "email", 0, 3)
    assert (mail.first_at, mail.last_at) == (None, None)
    assert (sms.planned, sms.told, sms.failed, sms.doubt) == (264, 260, 4, 0)
    assert sms.first_at is not None and sms.last_at is not None
    assert sms.last_at - sms.first_at == timedelta(minutes=5)
    # Batches of the same seconds are one.
    assert [(each.channel, each.told) for each in stretches] == [("sms", 260)]


def test_messages_are_those_that_were_released_with_who_had_them(ledger: Ledger) -> None:
    incident = opened(ledger)
    update = told(
        ledger,
        incident,
        Said([Some("media", "sms", "accepted", 1, 7), Some("partners", "sms", "pending", 1, 2)]),
    )
    with ledger.read() as conn:
        found = accounts.sent_messages(conn, incident)
        assert [(each.audience, each.told, each.parts) for each in found] == [
            ("media", 7, {"text": "Down"}),
            ("partners", 0, {"text": "Down"}),
        ]
        conn.execute("UPDATE release SET released_at = NULL WHERE audience = 'media'")
        assert [each.audience for each in accounts.sent_messages(conn, incident)] == ["partners"]
        assert accounts.sent_messages(conn, incident, audiences=["media"]) == ()
        (rows,) = accounts.releases(conn, incident).values()
    assert [(row.audience, row.state) for row in rows] == [
        ("media", "released"),
        ("partners", "released"),
    ]
    assert found[0].update_id == update


def test_acts_are_the_latest_in_order_of_an_incident_or_an_update(ledger: Ledger) -> None:
    incident, other = opened(ledger), opened(ledger)
    update = told(ledger, incident, Said([Some("media", "sms", "accepted", 1, 1)]))
    with ledger.transaction() as work:
        for act, about in (("a", None), ("b", update), ("c", update)):
            audit.record(work.conn, actor="x", act=act, incident_id=incident, update_id=about)
        audit.record(work.conn, actor="x", act="d", incident_id=other)
    with ledger.read() as conn:
        assert [act.act for act in accounts.acts(conn, incident)] == ["a", "b", "c"]
        assert [act.act for act in accounts.acts(conn, incident, limit=2)] == ["b", "c"]
        of_update = accounts.acts(conn, incident, update_id=update)
    assert [act.act for act in of_update] == ["b", "c"]


def test_messages_that_held_a_fact_and_left_are_counted_by_fact(ledger: Ledger) -> None:
    incident = opened(ledger)
    told(
        ledger,
        incident,
        Said(
            [
                Some("media", "sms", "accepted", 1, 10),
                Some("media", "sms", "unknown", 11, 12, "timeout"),
                Some("media", "sms", "failed", 13, 20, "content"),
                Some("media", "email", "delivered", 1, 4),
                Some("partners", "email", "pending", 1, 5),
            ],
            facts=[CAUSE],
        ),
    )
    told(ledger, incident, Said([Some("media", "sms", "accepted", 9, 15)], facts=[CAUSE, SCOPE]))
    told(ledger, incident, Said([Some("media", "sms", "accepted", 90, 95)], facts=[SCOPE]))
    told(ledger, opened(ledger), Said([Some("media", "sms", "accepted", 60, 70)], facts=[CAUSE]))
    with ledger.read() as conn:
        # Sixteen by the first update, seven by the second, some of them by both.
        assert accounts.heard(conn, incident) == {CAUSE: 23, SCOPE: 13}


def test_what_was_never_released_was_carried_to_nobody(ledger: Ledger) -> None:
    incident = opened(ledger)
    told(ledger, incident, Said([Some("media", "sms", "accepted", 1, 3)], facts=[CAUSE]))
    with ledger.read() as conn:
        conn.execute("UPDATE release SET released_at = NULL")
        assert accounts.heard(conn, incident) == {}
