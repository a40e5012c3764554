-- The counters.  What they mean is said in module/core/mpol_counter.h, the
-- arithmetic is that of mpol_counter.c, and tests/vectors/ holds for both.
-- Loaded behind store.lua.
--
-- A counter is one field, named like its unit, of the hash in the used key:
--   w <width> <count> <from> <slot>:<n>[ <distance>:<n>]...     a window
--   b <tat> <count> <period> <burst> <from>                     a bucket
-- count to from: the rate that charged last, and a letter of FROM.  A slot's
-- distance is that from the one before.  What cannot be read, or is longer than
-- 2048 octets, is empty.

-- charges slot i, which is not before the last one; moved if that had to come
-- from the future to the present slot.  A window's slots are v[1], v[3], ...,
-- what they count v[2], v[4], ..., up to v[v.size].
local function window_put(v, i, n)
    if n == 0 then return end
    if i > v.newest then i, v.moved = v.newest, true end
    if i + 64 < v.newest then return end
    local last = v.size
    v.used = add(v.used, n)
    if last > 0 and v[last - 1] == i then
        v[last] = add(v[last], n)
    else
        v[last + 1], v[last + 2], v.size = i, n, last + 2
    end
end

-- the window as it counts now, in slots of the width given; without a width in
-- those it has, and nil if it is none
local function window_view(value, given)
    local old, count, from, list =
        match(value or '', '^w (%d+) (%d+) ([c*p@k])( .*)$')
    old, count = tonumber(old), tonumber(count)
    if list and (old < 1 or count > NEVER or #value > 2048) then list = nil end
    local width = given or list and old
    if not width then return nil end
    -- with room for some slots from the start
    local v = { 0, 0, 0, 0, width = width, newest = div(now, width), used = 0,
                size = 0, moved = false, count = count, from = from }
    if not list then return v end
    local i, length = 0, 0
    for distance, n in gmatch(list, ' (%d+):(%d+)') do
        length = length + #distance + #n + 2
        i, n = i + distance, n + 0
        if (i + 1) * old >= NEVER or n > NEVER then
            return window_view(nil, given)
        end
        window_put(v, old == width and i or div((i + 1) * old - 1, width), n)
    end
    if length ~= #list then return window_view(nil, given) end
    return v
end

-- the field, and when it expires; nil if nothing counts
local function window_text(v)
    local text, before = nil, 0
    for i = 1, v.size, 2 do
        if v[i + 1] > 0 then
            text = format('%s %.0f:%.0f', text or format('w %.0f %.0f %s',
                v.width, v.count, v.from), v[i] - before, v[i + 1])
            before = v[i]
        end
    end
    return text, (before + 65) * v.width
end

-- tat, count, period, burst, from; nil if it is no bucket
local function bucket_parse(value)
    local tat, count, period, burst, from =
        match(value or '', '^b (%d+) (%d+) (%d+) (%d+) ([c*p@k])$')
    if not from or #value > 2048 then return nil end
    tat, count = tonumber(tat), tonumber(count)
    period, burst = tonumber(period), tonumber(burst)
    if count < 1 or max(tat, count, period, burst) > NEVER then return nil end
    return tat, count, period, burst, from
end

local function bucket_text(...)
    return format('b %.0f %.0f %.0f %.0f %s', ...)
end
