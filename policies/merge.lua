-- Adds what was counted elsewhere while the store was away.  Nothing is judged.
--
-- KEYS  used, failed, merged
-- ARGV  nunits; per unit: name, text; an id: what was added under it is not
--       added again, for ten minutes
--       a window's text is that of the field, see counter.lua; a bucket's is
--       "b <cost> <count> <period> <burst> <from>"; that of auth_failures
--       "<expires>:<tag>[ <expires>:<tag>]..."
-- Reads and writes members of merged by when they are forgotten.
-- Writes the keys, each with a TTL.  A key of another type is left alone, and
-- so is what a text that cannot be read is for.
-- Returns { number of units that were written }.

-- what is there is in the same slots, or is no window
local function merge_window(value, text)
    local there = window_view(value)
    local v = window_view(text, there and there.width)
    if not v or v.size == 0 then return nil end
    if not there then return window_text(v) end
    local both = window_view(nil, v.width)
    local i, k = 1, 1
    while i < v.size or k < there.size do
        if k > there.size or i < v.size and v[i] <= there[k] then
            window_put(both, v[i], v[i + 1])
            i = i + 2
        else
            window_put(both, there[k], there[k + 1])
            k = k + 2
        end
    end
    both.count, both.from = v.count, v.from
    return window_text(both)
end

local function merge_bucket(value, text)
    local cost, count, period, burst, from = bucket_parse(text)
    if not cost or cost == 0 then return nil end
    local tat = add(max(bucket_parse(value) or 0, now), cost)
    tat = min(tat, add(now, muldiv(burst, period, count)))
    return bucket_text(tat, count, period, burst, from), tat
end

local function merge_counter(key, name, text)
    local values = try('HMGET', key, name)
    if not values then return 0 end
    local merge = match(text, '^b') and merge_bucket or merge_window
    local field, expires = merge(values[1] or nil, text)
    if not field then return 0 end
    redis.call('HSET', key, name, field)
    keep(key, expires)
    return 1
end

local function merge_failed(key, text)
    local last = 0
    if not set_prune(key) then return 0 end
    for expires, tag in string.gmatch(text, '(%d+):(%w+)') do
        expires = tonumber(expires)
        if expires > now and expires <= NEVER
            and redis.call('ZADD', key, 'NX', expires, tag) == 1 then
            last = max(last, expires)
        end
    end
    if last == 0 then return 0 end
    keep(key, last)
    return 1
end

local FORGET = 600000000

local written = 0
local id = ARGV[2 * ARGV[1] + 2]

if id and set_prune(KEYS[3]) then
    if redis.call('ZADD', KEYS[3], 'NX', now + FORGET, id) == 0 then
        return { 0 }
    end
    keep(KEYS[3], now + FORGET)
end

for a = 2, 2 * ARGV[1], 2 do
    if ARGV[a] == 'auth_failures' then
        written = written + merge_failed(KEYS[2], ARGV[a + 1])
    else
        written = written + merge_counter(KEYS[1], ARGV[a], ARGV[a + 1])
    end
end

return { written }
