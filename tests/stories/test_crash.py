"""A worker is killed and the broker forgets everything, in the middle of it."""

import os
import signal
from collections import Counter

import redis

from tests.stories.house import LEASE, House, person, phone

CROWD = 3_000


def test_kill_and_flush_lose_nothing_and_double_nothing(house: House) -> None:
    """Each row is accounted for; those in doubt say so; nobody is told twice."""
    house.people(person(n, phone=phone(n)) for n in range(CROWD))
    house.sandbox.fault("twilio", delay=0.5)
    update = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["accepted"] > 200)

    owners = house.sql("SELECT lease_owner, id FROM batch WHERE sending > 0 ORDER BY sending DESC")
    pid = int(owners[0][0].rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)
    redis.Redis.from_url(house.stack.addresses.broker_url).flushall()
    held = house.sql("SELECT sum(sending) FROM batch WHERE id = %s", owners[0][1])[0][0]
    house.sandbox.clear_faults()

    numbers = house.complete(update, within=LEASE + 30)
    states = house.judged(update)
    assert sum(states.values()) == CROWD == numbers["planned"]
    assert set(states) <= {"accepted", "unknown"}
    assert 0 < states["unknown"] <= held
    in_doubt = house.rows(update, state="unknown")
    assert Counter(row["reason"] for row in in_doubt) == {"lease_lost": states["unknown"]}
    assert all(row["attempts"] == 1 for row in in_doubt)
    assert len(house.rows(update, told="no")) == states["unknown"]
    took = house.sandbox.counts("twilio")
    assert states["accepted"] <= took["messages"] <= CROWD
    assert took["addresses"] == took["messages"]
