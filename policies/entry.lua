-- What operators write: the rates and the other fields of an own entry.  The
-- grammar is that of module/core/mpol_rate.h, tests/vectors/ holds for both.
-- Loaded behind store.lua.

-- a count of 1 to 2^40, nil if it is another
local function rate_count(digits, suffix)
    local n = tonumber(digits) * ({ [''] = 1, k = 1024, m = 1048576,
                                    g = 1073741824 })[suffix]
    return n >= 1 and n <= 1099511627776 and n or nil
end

-- kind, count, period, burst; nil if it cannot be read
local function rate_parse(name, text)
    text = string.lower(text)
    if text == 'unlimited' then return UNLIMITED, 0, 0, 0 end
    if text == 'blocked' then return BLOCKED, 0, 0, 0 end

    if name == 'sessions' then
        local count = match(text, '^%d+$') and rate_count(text, '')
        if not count then return nil end
        return WINDOW, count, 0, 0
    end

    local count, k, period, unit, rest =
        match(text, '^(%d+)([kmg]?)/(%d*)([smhdw])(.*)$')
    if not count then return nil end
    local kind, burst, burst_k = WINDOW, '1', ''
    if rest ~= '' then
        kind = BUCKET
        burst, burst_k = match(rest, '^,burst=(%d+)([kmg]?)$')
        if not burst or name == 'auth_failures' then return nil end
    end
    if name ~= 'bytes' and k .. burst_k ~= '' then return nil end

    count, burst = rate_count(count, k), rate_count(burst, burst_k)
    period = (tonumber(period) or 1)
        * ({ s = 1, m = 60, h = 3600, d = 86400, w = 604800 })[unit]
    if not count or not burst or period < 1 or period > 366 * 86400 then
        return nil
    end
    period = period * 1000000
    if kind == WINDOW then return kind, count, period, 0 end
    if muldiv(burst, period, count) > NEVER / 2 then return nil end
    return kind, count, period, burst
end

-- a limit's unit number n is blocked, or gets the rate that is in the entry
local function entry_unit(limit, n, text, suspended)
    local u = limit[n]
    if suspended then
        u.kind, u.count, u.period, u.burst, u.from = BLOCKED, 0, 0, 0, OWN
        return
    end
    if not text or limit.forced then return end
    local kind, count, period, burst = rate_parse(u.name, text)
    if not kind then
        limit.bad = limit.bad + 2 ^ (n - 1)
        return
    end
    u.kind, u.count, u.burst, u.from = kind, count, burst, OWN
    -- how long a lease lasts is no matter of operators
    if u.name ~= 'sessions' then u.period = period end
end

-- the plan that the own entry of a limit names, '' if none; sets the limit's
-- rates and what is bad
local function entry_read(limit, key)
    local n = #limit
    local values = try('HMGET', key, unpack(limit.names))
    if not values then
        limit.bad = 2 ^ n - 1
        return ''
    end
    local plan, suspended = values[n + 1], values[n + 2]
    suspended = suspended and suspended ~= '' and suspended ~= '0'
        and string.lower(suspended) ~= 'no'
    for u = 1, n do entry_unit(limit, u, values[u], suspended) end
    if not plan or limit.forced then return '' end
    if #plan <= 64 and match(plan, '^[%w_-]+$') then return plan end
    limit.bad = limit.bad + 2 ^ 29
    return ''
end
