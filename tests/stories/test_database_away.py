"""PostgreSQL is killed while messages are on their way, and stays away for some seconds."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.stories.house import House, person, phone, until

CROWD = 1_200


def test_outcomes_are_kept_until_the_database_is_back(house: House) -> None:
    """503 with Retry-After meanwhile; then every outcome is written, once, and all are told."""
    house.people(person(n, phone=phone(n)) for n in range(CROWD))
    house.sandbox.fault("twilio", delay=0.4)
    update = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["accepted"] > 100)

    with house.without_database():
        # Each call waits some seconds for the database before it gives up: all at once.
        with ThreadPoolExecutor() as callers:
            asked = [
                callers.submit(_progress, house, update),
                callers.submit(_opening, house),
                callers.submit(house.operator.http.get, "/readyz"),
            ]
        *answers, ready = [call.result() for call in asked]
        assert ready.status_code == 503
        assert [answer.status_code for answer in answers] == [503, 503]
        for answer in answers:
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["type"] == "/problems/database-away"
        assert house.operator.http.get("/healthz").status_code == 200
        # Every request that was under way has its answer, and no window follows it.
        until(_Still(house), what="the end of what was under way")
        left = house.sandbox.counts("twilio")["messages"]
        assert left < CROWD

    until(lambda: _progress(house, update).status_code == 200)
    house.sandbox.clear_faults()
    numbers = house.complete(update)
    assert numbers["by_state"]["accepted"] == CROWD
    assert house.judged(update) == {"accepted": CROWD}
    assert house.sandbox.counts("twilio")["messages"] == CROWD
    assert len(house.operator.get("/v1/incidents")["incidents"]) == 1


def _progress(house: House, update: str) -> httpx.Response:
    return house.operator.http.get(f"/v1/updates/{update}/progress")


def _opening(house: House) -> httpx.Response:
    return house.operator.http.post("/v1/incidents", json=house.opening("consumers"))


class _Still:
    """Whether the simulator's count has stood for the last twenty looks, a second in all."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._count = -1
        self._looks = 0

    def __call__(self) -> bool:
        count = self._house.sandbox.counts("twilio")["messages"]
        self._looks = self._looks + 1 if count == self._count else 0
        self._count = count
        return self._looks >= 20
