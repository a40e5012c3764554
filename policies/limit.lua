-- How all units of a limit are judged, and charged.  Loaded behind judge.lua.
--
-- A limit is its units; key, the used key, of which nothing is read unless it
-- counts; names, those of the units first.  Judging sets fits, if all units do,
-- and alone, if a key is of another type and has to be left alone.

-- charges it if due; the field that is to be written, and when it expires
local function charge_counter(u, due)
    local from = string.sub(FROM, u.from + 1, u.from + 1)
    if u.kind == WINDOW then
        local v = u.view
        if due then
            window_put(v, v.newest, u.amount)
            v.count, v.from = u.count, from
            u.remaining = u.remaining - u.amount
        end
        return window_text(v)
    end
    if due then
        local tat = add(now, u.level + u.cost)
        local used = muldiv(u.level + u.cost, u.count, u.period)
        u.remaining = u.burst - min(used, u.burst)
        return bucket_text(tat, u.count, u.period, u.burst, from), tat
    end
    local _, count, period, burst, letter = bucket_parse(u.value)
    local tat = add(now, u.level)
    return bucket_text(tat, count, period, burst, letter), tat
end

-- the same, which is written here; what has expired goes in any case, as it may
-- not count again should the clock go back
local function charge_set(u, due)
    if due and not u.there then u.remaining = u.remaining - 1 end
    if u.kind ~= WINDOW or u.wrong then return end
    set_prune(u.key)
    if u.moved then set_bring(u.key, now + u.period) end
    if due and not (u.there and u.name == 'auth_failures') then
        set_add(u.key, u.member, now + u.period)
    end
end

local function limit_judge(limit)
    local values = limit.counts
        and try('HMGET', limit.key, unpack(limit.names, 1, #limit))
    limit.wrong, limit.fits = limit.counts and not values, true
    for n, u in ipairs(limit) do
        u.value = values and values[n]
        judge(u)
        limit.fits = limit.fits and u.fits
        limit.alone = limit.alone or limit.wrong or u.wrong or u.wrong_exempt
    end
end

local function limit_charge(limit, due)
    local hash, size, last = { 'HSET', limit.key }, 2, 0
    for _, u in ipairs(limit) do
        local pays = due and u.amount > 0
            and (u.kind == WINDOW or u.kind == BUCKET)
        if u.key then
            charge_set(u, pays)
        elseif pays or u.moved then
            local text, expires = charge_counter(u, pays)
            hash[size + 1], hash[size + 2] = u.name, text
            size, last = size + 2, max(last, expires)
        end
    end
    if size > 2 and not limit.wrong then
        redis.call(unpack(hash))
        keep(limit.key, last)
    end
end
