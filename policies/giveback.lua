-- Takes back what charge.lua charged and what was not used.  Call it once.
--
-- KEYS  one used key a limit; behind them, limit by limit, the keys of sets as
--       in charge.lua
-- ARGV  at (the [2] of charge's answer), ok (1: the login succeeded), n; per
--       limit: nunits; per unit: name, kind, count, period, burst (the rate
--       that charge answered), amount (0: nothing goes back), member
-- Fields as in charge.lua.  Goes nowhere below 0; a field in which nothing is
-- left is deleted.  Makes no key but the exempt one, which gets a TTL.  A key
-- of another type is left alone.
-- Returns { number of limits that were written }.

local at, ok = tonumber(ARGV[1]), ARGV[2] == '1'
local a, set = 3, tonumber(ARGV[3])

-- in the width that the counter has now, see mpol_counter.c
local function back_window(value, period, amount)
    local v, own = window_view(value), div(period, 64)
    if not v then return nil end
    local i, n = div(at, own), v.size
    if own ~= v.width then i = div((i + 1) * own - 1, v.width) end
    i = min(i, v.newest)
    while n > 0 and v[n - 1] > i do n = n - 2 end
    if n == 0 or v[n - 1] ~= i then return nil end
    v[n] = max(v[n] - amount, 0)
    local text, expires = window_text(v)
    return text or '', expires
end

local function back_bucket(value, count, period, burst, amount)
    local tat, a_count, a_period, a_burst, from = bucket_parse(value)
    local last = add(at, muldiv(burst, period, count))
    if not tat or tat <= now or last <= now then return nil end
    tat = tat - min(muldiv(amount, period, count), last - now)
    if tat <= now then return '' end
    return bucket_text(tat, a_count, a_period, a_burst, from), tat
end

-- each says whether something was written

local function back_counter(key, name, kind, count, period, burst, amount)
    local value, text, expires = try('HMGET', key, name), nil, nil
    value = value and value[1] or nil
    if kind == WINDOW then
        text, expires = back_window(value, period, amount)
    elseif kind == BUCKET then
        text, expires = back_bucket(value, count, period, burst, amount)
    end
    if text == '' then
        redis.call('HDEL', key, name)
    elseif text then
        redis.call('HSET', key, name, text)
        keep(key, expires)
    end
    return text
end

local function back_lease(key, lease)
    return try('ZREM', key, lease) == 1
end

local function back_failure(failed, exempt, period, member)
    local tag, client = match(member, '^(%S*) (%S*)$')
    local expires = set_expires(failed, tag)
    local removed = expires and (ok or expires == at + period)
        and redis.call('ZREM', failed, tag)
    if not ok or not set_prune(exempt) then return removed end
    set_add(exempt, client, now + period)
    return true
end

local function back(key, name, kind, count, period, burst, amount, member)
    local first = set + 1
    if name == 'sessions' then
        set = set + 1
    elseif name == 'auth_failures' then
        set = set + 2
    end
    if amount == 0 or kind ~= WINDOW and kind ~= BUCKET then return false end
    if name == 'sessions' then return back_lease(KEYS[first], member) end
    if name == 'auth_failures' then
        return back_failure(KEYS[first], KEYS[first + 1], period, member)
    end
    return back_counter(key, name, kind, count, period, burst, amount)
end

local touched = 0

for i = 1, set do
    local written = false
    a = a + 1
    for _ = 1, tonumber(ARGV[a]) do
        written = back(KEYS[i], ARGV[a + 1], tonumber(ARGV[a + 2]),
            tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]),
            tonumber(ARGV[a + 6]), ARGV[a + 7]) or written
        a = a + 7
    end
    if written then touched = touched + 1 end
end

return { touched }
