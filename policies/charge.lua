-- One question: judges all units of all limits, and charges all or none.
-- Loaded as counter.lua followed by this file.
--
-- KEYS  for limit i: [2i-1] its used key, [2i] its own-entry key; distinct
-- ARGV  per limit: nunits; per unit: name, kind, count, period, burst, amount
--       (name messages, recipients or bytes; kind as in mpol_rate_kind_e)
-- Reads the fields named like the units, in both hashes.  A rate in the own
-- entry replaces the one given; what cannot be read there is skipped.
-- Writes the used keys, each with a TTL; when refused, only what had to be
-- brought from the future to now.
-- Returns integers: 1 charged or 0 refused, now; per limit: bad; per unit:
--       fits, kind, count, period, burst, used, remaining, retry
--       (bad: bit u, own entry of unit u unreadable; bit 30, used key is no
--       hash and was left alone; times in microseconds; 2^53 means never)

local MULTIPLE = { [''] = 1, k = 1024, m = 1048576, g = 1073741824 }
local SECONDS = { s = 1, m = 60, h = 3600, d = 86400, w = 604800 }
local MAX = 1099511627776

-- the grammar of module/core/mpol_rate.h
local function parse(u, text)
    text = string.lower(text)
    if text == 'unlimited' then return UNLIMITED, 0, 0, 0 end
    if text == 'blocked' then return BLOCKED, 0, 0, 0 end
    local count, k, period, unit, rest =
        string.match(text, '^(%d+)([kmg]?)/(%d*)([smhdw])(.*)$')
    if not count then return nil end
    local kind, burst, burst_k = WINDOW, '1', ''
    if rest ~= '' then
        kind = BUCKET
        burst, burst_k = string.match(rest, '^,burst=(%d+)([kmg]?)$')
        if not burst then return nil end
    end
    if u.name ~= 'bytes' and k .. burst_k ~= '' then return nil end
    count = tonumber(count) * MULTIPLE[k]
    period = (tonumber(period) or 1) * SECONDS[unit]
    burst = tonumber(burst) * MULTIPLE[burst_k]
    if count < 1 or count > MAX or burst < 1 or burst > MAX
        or period < 1 or period > 366 * 86400 then return nil end
    period = period * 1000000
    if kind == WINDOW then return kind, count, period, 0 end
    if muldiv(burst, period, count) > NEVER / 2 then return nil end
    return kind, count, period, burst
end

local function judge_window(u)
    local v = window_view(u.value, div(u.period, 64))
    local room = math.max(u.count - v.used, 0)
    u.view, u.used, u.remaining, u.fits = v, v.used, room, u.amount <= room
    u.moved = v.moved
    if u.fits then return end
    u.retry = NEVER
    if u.amount > u.count then return end
    -- the newest slot that has to be released
    local i, left = v.newest, u.count - u.amount - (v.slot[v.newest] or 0)
    while left >= 0 and i > v.newest - 64 do
        i = i - 1
        left = left - (v.slot[i] or 0)
    end
    u.retry = (i + 65) * v.width - now
end

local function judge_bucket(u)
    local cost = muldiv(u.amount, u.period, u.count)
    local depth = muldiv(u.burst, u.period, u.count)
    local level = math.max(bucket_tat(u.value) - now, 0)
    if level > depth then level, u.moved = depth, true end
    u.level, u.cost = level, cost
    u.used = math.min(muldiv(level, u.count, u.period), u.burst)
    u.remaining = u.burst - u.used
    u.fits = u.amount <= u.burst and cost <= depth - level
    if u.fits then return end
    u.retry = u.amount > u.burst and NEVER or cost - (depth - level)
end

local function judge(u)
    u.used, u.remaining, u.retry, u.fits = 0, NEVER, 0, true
    if u.kind == WINDOW then
        judge_window(u)
    elseif u.kind == BUCKET then
        judge_bucket(u)
    elseif u.kind == BLOCKED then
        u.remaining, u.retry, u.fits = 0, NEVER, false
    end
end

local function charge(u)
    if u.kind == WINDOW then
        local v = u.view
        v.slot[v.newest] = add(v.slot[v.newest] or 0, u.amount)
        u.remaining = u.remaining - u.amount
    else
        u.level = u.level + u.cost
        local used = muldiv(u.level, u.count, u.period)
        u.remaining = u.burst - math.min(used, u.burst)
    end
end

local function field(u)
    if u.kind == WINDOW then return window_text(u.view) end
    return bucket_text(add(now, u.level))
end

local a, charged, limits = 0, 1, {}
local function arg()
    a = a + 1
    return tonumber(ARGV[a]) or ARGV[a]
end

for i = 1, #KEYS / 2 do
    local limit = { key = KEYS[2 * i - 1], bad = 0, names = {} }
    for n = 1, arg() do
        limit[n] = { name = arg(), kind = arg(), count = arg(),
                     period = arg(), burst = arg(), amount = arg() }
        limit.names[n] = limit[n].name
    end
    local values, own, wrong
    values, limit.wrong = read(limit.key, limit.names)
    own, wrong = read(KEYS[2 * i], limit.names)
    for n, u in ipairs(limit) do
        local bad = wrong
        u.value = values[n]
        if own[n] then
            local kind, count, period, burst = parse(u, own[n])
            if kind then
                u.kind, u.count, u.period, u.burst = kind, count, period, burst
            end
            bad = not kind
        end
        if bad then limit.bad = limit.bad + 2 ^ (n - 1) end
        judge(u)
        if not u.fits then charged = 0 end
    end
    limits[i] = limit
end

local answer = { charged, now }

for _, limit in ipairs(limits) do
    local hash, last = {}, 0
    for _, u in ipairs(limit) do
        local due = charged == 1 and u.amount > 0
            and (u.kind == WINDOW or u.kind == BUCKET)
        if due then charge(u) end
        if due or u.moved then
            local text, expires = field(u)
            hash[#hash + 1] = u.name
            hash[#hash + 1] = text
            last = math.max(last, expires)
        end
    end
    if #hash > 0 and not limit.wrong then
        redis.call('HSET', limit.key, unpack(hash))
        keep(limit.key, last)
    end
    answer[#answer + 1] = limit.bad + (limit.wrong and 2 ^ 30 or 0)
    for _, u in ipairs(limit) do
        for _, x in ipairs({ u.fits and 1 or 0, u.kind, u.count, u.period,
                             u.burst, u.used, u.remaining, u.retry }) do
            answer[#answer + 1] = x
        end
    end
end

return answer
