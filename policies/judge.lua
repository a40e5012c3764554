-- How a unit is judged.  Loaded behind counter.lua and members.lua.
--
-- A unit has a rate (kind, count, period, burst, from) and an amount; value,
-- the field of the used hash, if it is a counter; key and member if it is a
-- set, for auth_failures exempt and client too.  Judging sets used, remaining,
-- retry and fits; and moved, if something has to be brought to now.

local function judge_window(u)
    local v = window_view(u.value, div(u.period, 64))
    local room = max(u.count - v.used, 0)
    u.view, u.used, u.remaining, u.fits = v, v.used, room, u.amount <= room
    u.moved = v.moved
    if u.fits then return end
    u.retry = NEVER
    if u.amount > u.count then return end
    -- the newest slot that has to be released
    local i, sum = v.size, v[v.size]
    while sum <= u.count - u.amount do
        i = i - 2
        sum = add(sum, v[i])
    end
    u.retry = (v[i - 1] + 65) * v.width - now
end

local function judge_bucket(u)
    local cost = muldiv(u.amount, u.period, u.count)
    local depth = muldiv(u.burst, u.period, u.count)
    local level = max((bucket_parse(u.value) or 0) - now, 0)
    if level > depth then level, u.moved = depth, true end
    u.level, u.cost = level, cost
    u.used = min(muldiv(level, u.count, u.period), u.burst)
    u.remaining = u.burst - u.used
    u.fits = u.amount <= u.burst and cost <= depth - level
    if u.fits then return end
    u.retry = u.amount > u.burst and NEVER or cost - (depth - level)
end

local function judge_set(u)
    local used, room = set_count(u.key, now + 1), u.count
    u.wrong, u.used = not used, used or 0
    if u.used > 0 then
        u.there = set_expires(u.key, u.member)
        u.moved = set_count(u.key, now + u.period + 1) > 0
    end
    if u.exempt then
        local exempt, wrong = set_expires(u.exempt, u.client)
        if exempt then room = 2 * room end
        u.wrong_exempt = wrong
    end
    u.remaining = max(room - u.used, 0)
    u.fits = u.amount == 0 or u.used < room
        or u.there and u.name == 'sessions'
    if u.fits then return end
    u.retry = room == 0 and NEVER
        or min(set_nth(u.key, u.used - room + 1) - now, u.period)
end

local function judge(u)
    if u.kind == WINDOW and u.key then
        judge_set(u)
    elseif u.kind == WINDOW then
        judge_window(u)
    elseif u.kind == BUCKET then
        judge_bucket(u)
    elseif u.kind == BLOCKED then
        u.remaining, u.retry, u.fits = 0, NEVER, false
    end
end
