"""A person stops it underway and lets it go on; a worker is told to stop and does."""

import os
import signal
import time

from tests.stories.house import House, person, phone, until

CROWD = 1_500


def _slowly(house: House) -> str:
    """An update to a crowd whose every message the provider takes half a second over."""
    house.people(person(n, phone=phone(n)) for n in range(CROWD))
    house.sandbox.fault("twilio", delay=0.5)
    update: str = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["accepted"] > 0)
    return update


def test_stop_holds_what_is_unsent_and_resume_goes_on(house: House) -> None:
    """Saved and left make up the whole; nothing leaves after it; the same rows are told later."""
    update = _slowly(house)
    stopped = house.operator.post(f"/v1/updates/{update}/stop")
    assert stopped["stopped"] == ["consumers"]
    assert stopped["saved"] > 0
    assert stopped["left"] > 0
    assert stopped["saved"] + stopped["left"] == CROWD
    quiet = house.when(update, lambda now: now["by_state"]["sending"] == 0)
    assert quiet["state"] == "stopped"
    assert quiet["by_state"]["stopped"] == stopped["saved"]
    assert quiet["by_state"]["accepted"] == stopped["left"]
    assert house.sandbox.counts("twilio")["messages"] == stopped["left"]
    before = {row["id"] for row in house.rows(update)}

    house.sandbox.clear_faults()
    assert house.operator.post(f"/v1/updates/{update}/resume")["resumed"] == ["consumers"]
    numbers = house.complete(update)
    assert numbers["by_state"]["accepted"] == CROWD
    assert {row["id"] for row in house.rows(update)} == before
    assert house.judged(update) == {"accepted": CROWD}


def test_what_is_refused_for_now_after_a_stop_stays_stopped(house: House) -> None:
    """A row that was underway when the stop came is not left pending for ever."""
    house.people(person(n, phone=phone(n)) for n in range(100))
    house.sandbox.fault("twilio", status=429, delay=1.0, retry_after=1)
    update = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["sending"] > 0)
    house.operator.post(f"/v1/updates/{update}/stop")
    numbers = house.when(update, lambda now: bool(now["settled"]), within=15)
    assert numbers["by_state"]["stopped"] == 100
    assert numbers["complete"]
    assert house.sandbox.counts("twilio")["messages"] == 0


def test_a_worker_told_to_stop_finishes_its_window(house: House) -> None:
    """SIGTERM: gone within 20 s, nothing of it left in doubt, the others go on at once."""
    update = _slowly(house)
    sender = house.sql("SELECT lease_owner FROM batch WHERE lease_owner IS NOT NULL LIMIT 1")[0][0]
    pid = int(sender.rpartition(":")[2])
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{pid}"), within=20, what="the worker's end")
    assert time.monotonic() - began < 20
    held = house.sql("SELECT count(*) FROM batch WHERE lease_owner = %s", sender)
    assert held == [(0,)]
    house.sandbox.clear_faults()
    numbers = house.complete(update)
    assert numbers["by_state"]["accepted"] == CROWD
    assert house.judged(update) == {"accepted": CROWD}
