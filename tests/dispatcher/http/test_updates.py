"""An update's way over HTTP: approved by its content, released, stopped, watched and listed."""

from typing import Any

import pytest

from tests.dispatcher.http.client import Client, Event
from tests.dispatcher.http.conftest import Api, opened_by

HEADER = "id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox\n"
PEOPLE = HEADER + "".join(
    f"r{n},Name {n},en,consumer,US-TX,voice,,+1202555010{n},p{n}@example.org,,\n" for n in range(4)
)

WORDS = {"message": {"en": "Words.", "es": "Palabras.", "ru": "Слова.", "ar": "كلمات."}}


@pytest.fixture
def released(api: Api, client: Client) -> dict[str, Any]:
    """An update that was released to four consumers and planned; nothing is sent yet."""
    took = client.send("POST", "/v1/recipients/import", PEOPLE.encode(), Content_Type="text/csv")
    assert took.json["added"] == 4, took.json
    made = client.post(
        "/v1/incidents", opened_by({"audiences": ["consumers"]}, release="now")
    ).json["update"]
    assert made["released"] == ["consumers"]
    api.services.planner.plan(made["id"])
    return dict(made)


def accept(api: Api, update: str, how_many: int) -> None:
    """What a worker would have recorded: so many accepted, each with its proof."""
    with api.services.ledger.transaction() as work:
        work.conn.execute(
            "WITH chosen AS (SELECT id, batch_id FROM delivery WHERE update_id = %(u)s"
            "  AND state = 'pending' ORDER BY id LIMIT %(n)s),"
            " moved AS (UPDATE delivery d SET state = 'accepted', accepted_at = now(),"
            "  ref = d.id::text FROM chosen c WHERE d.id = c.id AND d.update_id = %(u)s"
            "  RETURNING d.id, d.batch_id),"
            " proved AS (INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter,"
            "  outcome, reason, detail, ref) SELECT %(u)s, id, 1, 1, 'twilio_sms', 'accepted',"
            "  'ok', '', id::text FROM moved)"
            " UPDATE batch b SET accepted = accepted + n, pending = pending - n,"
            "  first_accepted_at = now(), last_accepted_at = now()"
            " FROM (SELECT batch_id, count(*) AS n FROM moved GROUP BY 1) m WHERE m.batch_id = b.id",
            {"u": update, "n": how_many},
        )


def test_another_key_approves_exactly_the_content_it_saw(api: Api, client: Client) -> None:
    made = client.post("/v1/incidents", opened_by({"texts": WORDS})).json
    update, seen = made["update"]["id"], made["update"]["content_hash"]
    path = f"/v1/updates/{update}"

    own = client.post(f"{path}/approve", {"content_hash": seen})
    assert (own.status, own.json["type"]) == (403, "/problems/not-allowed")
    early = client.post(f"{path}/release", {"content_hash": seen})
    assert (early.status, early.json["type"]) == (409, "/problems/not-approved")

    other = api.client("approve")
    changed = other.post(f"{path}/approve", {"content_hash": "0" * 64})
    assert (changed.status, changed.json["type"]) == (409, "/problems/content-changed")
    unknown = other.post(f"{path}/approve", {"content_hash": seen, "audiences": ["nobody"]})
    assert (unknown.status, unknown.fields) == (422, {"audiences"})
    assert api.noted.planned == []

    approved = other.post(f"{path}/approve", {"content_hash": seen, "audiences": ["consumers"]})
    assert approved.status == 200
    assert approved.json["released"] == ["consumers"]
    assert approved.json["audiences"]["media"] == "submitted"
    assert api.noted.planned == [update]


def test_an_approved_draft_waits_for_its_release(api: Api, client: Client) -> None:
    made = client.post("/v1/incidents", opened_by({"texts": WORDS}, release="draft")).json
    path = f"/v1/updates/{made['update']['id']}"
    seen = client.post(f"{path}/submit").json["content_hash"]

    other = api.client("approve")
    approved = other.post(f"{path}/approve", {"content_hash": seen, "audiences": ["consumers"]})
    assert approved.json["audiences"]["consumers"] == "approved"
    assert client.get(f"{path}/progress").json["state"] == "approved"
    assert api.noted.planned == []

    let_go = client.post(f"{path}/release", {"content_hash": seen}, Idempotency_Key="go")
    assert let_go.json["released"] == ["consumers"]
    assert "media" in let_go.json["held"]
    again = client.post(f"{path}/release", {"content_hash": seen}, Idempotency_Key="go")
    assert again.body == let_go.body
    assert api.noted.planned == [made["update"]["id"]]


def test_breaking_the_glass_releases_all_and_is_audited(api: Api, client: Client) -> None:
    made = client.post("/v1/incidents", opened_by({"texts": WORDS})).json
    update = made["update"]

    broken = api.client("release:any").post(
        f"/v1/updates/{update['id']}/release", {"content_hash": update["content_hash"]}
    )

    assert set(broken.json["released"]) == set(api.services.packs.audiences)
    timeline = client.get(f"/v1/incidents/{made['id']}").json["timeline"]
    assert "release.break_glass" in [act["act"] for act in timeline]


def test_a_key_releases_no_more_people_than_its_limit(
    api: Api, client: Client, released: dict[str, Any]
) -> None:
    limited = api.client("incidents:write", "release", reach_limit=3)
    body = opened_by({"audiences": ["consumers"]}, release="now", force=True)

    found = limited.post("/v1/incidents", body)

    assert found.status == 403
    assert "4 people" in found.json["detail"]
    assert api.count("incident") == 1


def test_submitting_again_voids_and_withdrawing_takes_back(api: Api, client: Client) -> None:
    made = client.post("/v1/incidents", opened_by(release="draft")).json["update"]
    path = f"/v1/updates/{made['id']}"
    assert client.get(f"{path}/progress").json["state"] == "draft"

    submitted = client.post(f"{path}/submit")
    assert submitted.json["content_hash"]
    assert set(submitted.json["audiences"].values()) == {"submitted"}
    assert client.get(f"{path}/progress").json["state"] == "submitted"

    assert client.post(f"{path}/withdraw", {}).status == 200
    assert client.get(f"{path}/progress").json["state"] == "withdrawn"
    twice = client.post(f"{path}/withdraw")
    assert (twice.status, twice.json["type"]) == (409, "/problems/withdrawn")


def test_progress_tells_every_stage(api: Api, client: Client, released: dict[str, Any]) -> None:
    path = f"/v1/updates/{released['id']}/progress"
    sending = client.get(path).json
    planned = sending["planned"]
    assert planned == sum(sending["by_state"].values()) == sending["by_state"]["pending"] > 0
    assert (sending["mode"], sending["state"]) == ("sandbox", "sending")
    assert (sending["settled"], sending["complete"]) == (False, False)

    accept(api, released["id"], planned)
    done = client.get(path).json
    assert done["state"] == "complete"
    assert done["balanced"] and done["settled"] and done["complete"]
    assert done["by_state"]["accepted"] == planned
    assert sum(row["accepted"] for row in done["by_channel"].values()) == planned
    assert done["by_audience"]["consumers"]["accepted"] == planned
    assert done["first_accepted_at"] and done["last_accepted_at"]


def test_what_is_released_but_not_planned_is_planning(api: Api, client: Client) -> None:
    made = client.post("/v1/incidents", opened_by(release="now")).json["update"]

    assert client.get(f"/v1/updates/{made['id']}/progress").json["state"] == "planning"


def test_a_ledger_that_does_not_balance_is_never_complete(
    api: Api, client: Client, released: dict[str, Any]
) -> None:
    accept(api, released["id"], 100)
    with api.services.ledger.read() as conn:
        conn.execute("DELETE FROM attempt")

    found = client.get(f"/v1/updates/{released['id']}/progress").json

    assert (found["balanced"], found["complete"], found["state"]) == (False, False, "released")


def test_stop_and_resume(api: Api, client: Client, released: dict[str, Any]) -> None:
    path = f"/v1/updates/{released['id']}"
    accept(api, released["id"], 1)
    planned = client.get(f"{path}/progress").json["planned"]

    stopped = client.post(f"{path}/stop").json
    assert stopped["stopped"] == ["consumers"]
    assert (stopped["saved"], stopped["left"]) == (planned - 1, 1)
    assert client.get(f"{path}/progress").json["state"] == "stopped"
    twice = client.post(f"{path}/stop", {"audiences": ["consumers"]})
    assert (twice.status, twice.json["type"]) == (409, "/problems/nothing-to-stop")

    api.noted.sent.clear()
    resumed = client.post(f"{path}/resume", {})
    assert resumed.json["resumed"] == ["consumers"]
    assert api.noted.sent
    assert client.get(f"{path}/progress").json["state"] == "sending"


def test_deliveries_by_page_and_filter(api: Api, client: Client, released: dict[str, Any]) -> None:
    path = f"/v1/updates/{released['id']}/deliveries"
    whole = client.get(f"{path}?limit=1000").json
    assert whole["next"] is None
    rows = whole["deliveries"]
    assert {row["recipient"] for row in rows} == {"r0", "r1", "r2", "r3"}
    assert {row["audience"] for row in rows} == {"consumers"}

    paged: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = client.get(f"{path}?limit=1{cursor}").json
        paged += page["deliveries"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert paged == rows

    accept(api, released["id"], 1)
    accepted = client.get(f"{path}?state=accepted").json["deliveries"]
    assert len(accepted) == 1
    told = accepted[0]["recipient"]
    untold = client.get(f"{path}?told=no").json["deliveries"]
    assert {row["recipient"] for row in untold} == {"r0", "r1", "r2", "r3"} - {told}
    channel = accepted[0]["channel"]
    assert (
        accepted[0] in client.get(f"{path}?channel={channel}&audience=consumers").json["deliveries"]
    )
    assert client.get(f"{path}?audience=media").json["deliveries"] == []

    shown = client.get(path).body
    for secret in (b"2025550", b"example.org", b"Name "):
        assert secret not in shown


def test_a_watcher_sees_each_change_and_the_end(
    api: Api, client: Client, released: dict[str, Any]
) -> None:
    path = f"/v1/updates/{released['id']}/progress/events"
    seen: list[Event] = []
    with client.stream(path) as events:
        assert events.content_type.startswith("text/event-stream")
        for event in events:
            seen.append(event)
            if event.name == "progress" and not event.json["complete"]:
                accept(api, released["id"], 1)

    assert [event.name for event in seen[-2:]] == ["progress", "complete"]
    assert seen[-1].json["complete"] is True
    counted = [event.json["by_state"]["accepted"] for event in seen]
    assert counted == sorted(counted)
    assert counted[0] == 0
    assert len({event.id for event in seen}) == len(seen) - 1

    over = client.get(path, Last_Event_ID=seen[-1].id)
    assert (over.status, over.body) == (204, b"")
    with client.stream(path, Last_Event_ID=seen[0].id) as late:
        assert [event.name for event in late] == ["progress", "complete"]


def test_who_resumes_is_not_told_again_what_it_knows(
    api: Api, client: Client, released: dict[str, Any]
) -> None:
    path = f"/v1/updates/{released['id']}/progress/events"
    with client.stream(path) as events:
        first = next(iter(events))
    with client.stream(path, Last_Event_ID=first.id) as events:
        accept(api, released["id"], 1)
        second = next(iter(events))

    assert second.json["by_state"]["accepted"] == 1


def test_many_watchers_cost_one_reading(api: Api, released: dict[str, Any]) -> None:
    client = api.client("read")
    path = f"/v1/updates/{released['id']}/progress/events"
    with client.stream(path) as one, client.stream(path) as two:
        first, second = iter(one), iter(two)
        assert next(first) == next(second)
        accept(api, released["id"], 1)
        assert next(first) == next(second)
