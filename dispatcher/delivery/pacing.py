"""How fast a sender may go, exactly, over all workers.

One number per sender stands in Valkey: the moment at which its next unit may leave (GCRA,
the generic cell rate algorithm). Taking n units is one script, O(1) whatever n is, on the
server's own clock. What is granted is a row of moments, evenly spaced, at most `ahead`
seconds from now; the caller starts each request at its moment, so no stretch of a second
ever holds more than the rate. A wait for a unit is not an attempt, and nobody sleeps for
it longer than `ahead`: a sender with nothing to grant parks the batch in the ledger.

Without Valkey a worker goes on alone with a small share of the rate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

AHEAD = 1.0
"""Seconds that a window may reach ahead: so long may an urgent unit wait behind bulk."""
URGENT_AHEAD = 5.0
ALONE_SHARE = 0.1
"""Of the rate, for a worker that cannot ask the others."""

# KEYS[1] sender. ARGV: interval (s per envelope), wanted, ahead (s).
# Answers granted, offset of the first moment from now, wait until something can be granted,
# and the number as it then stands.
_TAKE = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1e6
local interval, wanted, ahead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
if tat < now then tat = now end
local granted = math.floor((now + ahead - tat) / interval)
if granted < 1 and tat <= now then granted = 1 end
if granted > wanted then granted = wanted end
if granted < 1 then
    local wait = tat + interval - ahead - now
    if tat - now < wait or interval > ahead then wait = tat - now end
    return {0, '0', string.format('%.6f', math.max(wait, 0.001)), ''}
end
local new = tat + granted * interval
local written = string.format('%.6f', new)
redis.call('SET', KEYS[1], written, 'PX', math.ceil((new - now) * 1000) + 1000)
return {granted, string.format('%.6f', tat - now), '0', written}
"""

# Units granted and not used go back, as long as nobody was granted later ones: else what is
# granted next would fall into moments that are given away already.
_RETURN = """
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], string.format('%.6f', tonumber(ARGV[2]) - tonumber(ARGV[1])), 'KEEPTTL')
return 1
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """A sender's pace: `rate` in the provider's unit per second, `units` per envelope."""

    sender: str
    rate: float
    units: int = 1

    @property
    def interval(self) -> float:
        """Seconds between two envelopes."""
        return self.units / self.rate


@dataclass(frozen=True, slots=True)
class Grant:
    """`count` envelopes may leave, the first `offset` seconds from now, then `interval` apart.

    With `count` 0, nothing can be granted for `wait` seconds. `until` is the sender's number as
    this grant left it, empty if it was granted without Valkey.
    """

    count: int
    offset: float = 0.0
    interval: float = 0.0
    wait: float = 0.0
    until: str = ""


class Pacing:
    """Grants from one number per sender in Valkey, shared by all workers."""

    def __init__(self, redis: Redis, *, monotonic: Callable[[], float]) -> None:
        self._redis = redis
        self._monotonic = monotonic
        self._take = redis.register_script(_TAKE)
        self._return = redis.register_script(_RETURN)
        self._alone: dict[str, float] = {}

    async def take(self, pace: Pace, wanted: int, *, urgent: bool = False) -> Grant:
        """Moments for up to `wanted` envelopes."""
        ahead = URGENT_AHEAD if urgent else AHEAD
        try:
            granted, offset, wait, until = await self._take(
                keys=[_key(pace)], args=[repr(pace.interval), wanted, ahead]
            )
        except (RedisError, OSError) as error:
            log.warning("pacing.alone", sender_rate=pace.rate, error=type(error).__name__)
            return self._take_alone(pace, wanted, ahead)
        return Grant(int(granted), float(offset), pace.interval, float(wait), until.decode())

    async def give_back(self, pace: Pace, grant: Grant, count: int) -> None:
        """Return the last `count` envelopes of a grant, which had nobody to go to.

        They are only taken back if nobody was granted anything after them.
        """
        if count < 1 or not grant.until:
            return
        try:
            await self._return(keys=[_key(pace)], args=[repr(pace.interval * count), grant.until])
        except (RedisError, OSError):
            return

    def _take_alone(self, pace: Pace, wanted: int, ahead: float) -> Grant:
        now = self._monotonic()
        interval = pace.interval / ALONE_SHARE
        tat = max(self._alone.get(pace.sender, 0.0), now)
        granted = min(wanted, max(int((now + ahead - tat) / interval), 1 if tat <= now else 0))
        if granted < 1:
            return Grant(0, wait=max(tat - now, 0.001))
        self._alone[pace.sender] = tat + granted * interval
        return Grant(granted, tat - now, interval)


def _key(pace: Pace) -> str:
    return f"pace:{pace.sender}"
