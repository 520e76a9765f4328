"""A worker is killed and the broker forgets everything, in the middle of it."""

import os
import signal
from collections import Counter

import redis

from tests.stories.house import LEASE, House, person, phone

CROWD = 3_000


def test_kill_and_flush_lose_nothing_and_double_nothing(house: House) -> None:
    """Those in doubt are asked about; everybody is told, and nobody twice."""
    house.people(person(n, phone=phone(n)) for n in range(CROWD))
    house.sandbox.fault("twilio", delay=0.5)
    update = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["accepted"] > 200)

    owners = house.sql("SELECT lease_owner, id FROM batch WHERE sending > 0 ORDER BY sending DESC")
    pid = int(owners[0][0].rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)
    redis.Redis.from_url(house.stack.addresses.broker_url).flushall()
    house.sandbox.clear_faults()

    numbers = house.complete(update, within=LEASE + 60)
    assert numbers["by_state"]["accepted"] == CROWD
    assert house.judged(update) == {"accepted": CROWD}
    took = house.sandbox.counts("twilio")
    assert took["messages"] == took["addresses"] == CROWD
    tried = Counter(
        (outcome, reason)
        for outcome, reason in house.sql(
            "SELECT outcome, reason FROM attempt WHERE delivery_id IN"
            " (SELECT delivery_id FROM attempt WHERE reason = 'lease_lost')"
        )
    )
    # Each row in doubt was asked about, and sent again only if the provider did not have it.
    in_doubt = tried["unknown", "lease_lost"]
    assert in_doubt > 0
    assert tried["accepted", "found"] + tried["accepted", "ok"] == in_doubt
