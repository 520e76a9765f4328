"""The Lua that Valkey runs for `pacing`: a sender's state and the three steps that change it.

Owns what stands in Valkey about senders, and the arithmetic on it. Each step is one script,
atomic, on the server's clock, and O(1) in what it grants; a long window costs at most its
fixed number of buckets. Must not know workers, envelopes or what they are granted for.

A sender is a hash: `tat`, the first moment that nobody has (GCRA, the generic cell rate
algorithm: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm); `share` of its rate
after a cut at `cut`; `hold`, before which nothing leaves. A long window is a hash of its
buckets by number, their sum `n` and the newest bucket `head`. One key, the marker, says
since when this Valkey remembers: what it may have forgotten, or what other workers were
granted just before, lies at most `REACH` seconds after that, so nothing is granted there.
"""

from typing import Final

BULK_AHEAD: Final = 0.5
"""Seconds that bulk may reach ahead: so long may an urgent unit wait behind it."""
REACH: Final = 1.0
"""Seconds that urgent may reach ahead; the moments that bulk cannot reach are its own."""
URGENT_SHARE: Final = 0.1
"""Of every long window, only for urgent."""
LEAST_SHARE: Final = 1 / 16
"""Of the rate: as far as throttling brings a sender down."""
RECOVERY: Final = 60.0
"""Seconds in which a sender comes back from nothing to its full rate."""
CUT_EVERY: Final = 1.0
"""Seconds within which throttled answers count as one."""
LONGEST_HOLD: Final = 900.0
"""Seconds that one throttled answer may hold a sender."""
BUCKETS: Final = 60
"""Parts of a long window. A part that has begun counts whole."""
MOST_UNITS: Final = 10
"""One envelope's units at most (a Twilio message has 10 segments): bounds a sane `tat`."""

CLOCK: Final = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1e6
"""

_COMMON = f"""
local REACH, RESERVE = {REACH}, {URGENT_SHARE}
local LEAST, RECOVERY, CUT_EVERY = {LEAST_SHARE}, {RECOVERY}, {CUT_EVERY}
local LONGEST_HOLD, BUCKETS, MOST = {LONGEST_HOLD}, {BUCKETS}, {MOST_UNITS}
local function text(number) return string.format('%.6f', number) end
local function share_of(share, cut)
    if not share then return 1 end
    return math.min(1, tonumber(share) + math.max(0, now - tonumber(cut)) / RECOVERY)
end
local function held(hold)
    hold = tonumber(hold or '0')
    if hold > now + LONGEST_HOLD then return 0 end -- the clock went back
    return hold
end
local function keep(key, last)
    redis.call('PEXPIRE', key, math.ceil((math.max(last - now, 0) + 2 * RECOVERY) * 1000))
end
"""

TAKE: Final = (
    _COMMON
    + """
-- KEYS: sender, marker, then each long window.
-- ARGV: rate, units, wanted, least, urgent, renewed, ahead, lead (seconds before which the
-- worker cannot start); then for each long window its seconds, its limit and what the ledger
-- counts of it by quarters, newest first, or -1 if it was not asked.
-- Answers granted, now, first moment, interval, wait, the new `tat`; granted is -1 if the
-- ledger must be asked first.
local rate, units, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local urgent, ahead = ARGV[5] == '1', tonumber(ARGV[7])

local since = tonumber(redis.call('GET', KEYS[2]) or '')
if ARGV[6] == '1' or not since or since > now then
    since = now
    redis.call('SET', KEYS[2], text(now))
end

local state = redis.call('HMGET', KEYS[1], 'tat', 'share', 'cut', 'hold')
local interval = units / (rate * share_of(state[2], state[3]))
local tat = tonumber(state[1] or '0')
if tat > now + REACH + MOST / (rate * LEAST) then -- the clock went back
    tat = now + REACH + interval
    redis.call('HSET', KEYS[1], 'tat', text(tat))
end
local first = math.max(tat, now + tonumber(ARGV[8]), since + REACH + interval, held(state[4]))

local granted = math.min(wanted, math.floor((now + ahead - first) / interval) + 1)
-- Bulk takes no crumbs: a quarter of its reach at once, or all that it wants.
local least = tonumber(ARGV[4])
if not urgent then least = math.max(least, math.floor(ahead / 4 / interval)) end
least = math.max(1, math.min(wanted, least))
local wait = first + (least - 1) * interval - ahead - now
if granted < least then granted = 0 end

local spent = {}
for w = 3, #KEYS do
    local key, at = KEYS[w], 9 + (w - 3) * 6
    local seconds, limit = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local width = seconds / BUCKETS
    local index = math.floor(now / width)
    local found = redis.call('HMGET', key, 'head', 'n')
    local head, sum = tonumber(found[1] or ''), tonumber(found[2] or '0')
    if head and head - index > BUCKETS then head = nil end -- the clock went far back
    if not head then
        if ARGV[at + 2] == '-1' then return {-1, text(now), '0', '0', '0', ''} end
        redis.call('DEL', key)
        head, sum = index, 0
        for quarter = 0, 3 do
            local units_then = tonumber(ARGV[at + 2 + quarter])
            sum = sum + units_then
            redis.call('HSET', key, index - quarter * BUCKETS / 4, units_then)
        end
        redis.call('HSET', key, 'head', head, 'n', sum)
    elseif index > head then
        for gone = head - BUCKETS, math.min(index - BUCKETS - 1, head) do
            local was = redis.call('HGET', key, gone)
            if was then
                sum = sum - tonumber(was)
                redis.call('HDEL', key, gone)
            end
        end
        head = index
        redis.call('HSET', key, 'head', head, 'n', sum)
    end
    redis.call('PEXPIRE', key, math.ceil((seconds + 2 * width) * 1000))
    if not urgent then limit = math.max(1, math.floor(limit * (1 - RESERVE))) end
    local left = math.floor((limit - sum) / units)
    if left < 1 then
        for oldest = head - BUCKETS, head do
            if tonumber(redis.call('HGET', key, oldest) or '0') > 0 then
                wait = math.max(wait, (oldest + BUCKETS + 1) * width - now)
                break
            end
        end
        -- One envelope costs more than the whole window holds.
        if sum <= 0 then wait = math.max(wait, seconds) end
        left = 0
    end
    granted = math.min(granted, left)
    spent[key] = {head, sum}
end

if granted < 1 then
    return {0, text(now), '0', '0', text(math.max(wait, 0.001)), ''}
end
for key, at in pairs(spent) do
    redis.call('HINCRBY', key, at[1], granted * units)
    redis.call('HSET', key, 'n', at[2] + granted * units)
end
local new = text(first + granted * interval)
redis.call('HSET', KEYS[1], 'tat', new)
keep(KEYS[1], tonumber(new))
return {granted, text(now), text(first), string.format('%.12g', interval), '0', new}
"""
)

GIVE_BACK: Final = (
    _COMMON
    + """
-- KEYS: sender, then each long window. ARGV: the `tat` that the grant left, the seconds of
-- its last moments that go back, the units that were not spent, when it was granted; then
-- the seconds of each long window.
-- Moments go back only if nobody was granted later ones: else what is granted next would
-- fall on those.
local tat = redis.call('HGET', KEYS[1], 'tat')
local back = tonumber(ARGV[2])
if back > 0 and tat == ARGV[1] then redis.call('HSET', KEYS[1], 'tat', text(tonumber(tat) - back)) end
for w = 2, #KEYS do
    local bucket = math.floor(tonumber(ARGV[4]) / (tonumber(ARGV[w + 3]) / BUCKETS))
    local held_there = tonumber(redis.call('HGET', KEYS[w], bucket) or '0')
    local units = math.min(held_there, tonumber(ARGV[3]))
    if units > 0 then
        redis.call('HINCRBY', KEYS[w], bucket, -units)
        redis.call('HINCRBY', KEYS[w], 'n', -units)
    end
end
return {1}
"""
)

THROTTLED: Final = (
    _COMMON
    + """
-- KEYS: sender. ARGV: seconds that the provider asks to wait. Answers the share of its rate
-- that the sender now has.
local state = redis.call('HMGET', KEYS[1], 'share', 'cut', 'hold')
local share, cut = share_of(state[1], state[2]), tonumber(state[2] or '0')
if now - cut >= CUT_EVERY or cut > now then
    share = math.max(LEAST, share / 2)
    redis.call('HSET', KEYS[1], 'share', string.format('%.9f', share), 'cut', text(now))
end
local hold = math.max(held(state[3]), now + math.min(tonumber(ARGV[1]), LONGEST_HOLD))
redis.call('HSET', KEYS[1], 'hold', text(hold))
keep(KEYS[1], hold)
return {string.format('%.9f', share)}
"""
)
