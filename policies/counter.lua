-- What charge.lua and giveback.lua share; each of them is loaded as this file
-- followed by it.  What a counter means is said in module/core/mpol_counter.h,
-- the arithmetic is that of mpol_counter.c, and tests/vectors/ holds for both.
--
-- A counter is one field, named like its unit, of the hash in the used key:
--   w <width> <slot>:<n> ...      a window; width in microseconds
--   b <tat>                       a bucket; microseconds
-- What cannot be read is empty.  All numbers are integers up to 2^53.

local NEVER = 9007199254740992
local WINDOW, BUCKET, UNLIMITED, BLOCKED = 1, 2, 3, 4

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function div(a, b)
    return (a - a % b) / b
end

local function add(a, b)
    return b > NEVER - a and NEVER or a + b
end

-- ceil(n * a / b), b <= 2^45: base 128 keeps all below 2^53 but a product that
-- add() ends there
local function muldiv(n, a, b)
    local whole, rest, q, r = div(a, b), a % b, 0, 0
    local place = 562949953421312
    while place >= 1 do
        r = r * 128 + div(n, place) % 128 * rest
        q = q * 128 + div(r, b)
        r = r % b
        place = place / 128
    end
    return add(whole * n, r > 0 and q + 1 or q)
end

local function window_parse(value)
    local width, list = string.match(value or '', '^w (%d+)(.*)$')
    width = tonumber(width)
    if not width or width < 1 then return nil end
    local slots, length = {}, 0
    for i, n in string.gmatch(list, ' (%d+):(%d+)') do
        length = length + #i + #n + 2
        i, n = tonumber(i), tonumber(n)
        if (i + 1) * width >= NEVER or n > NEVER then return nil end
        slots[i] = add(slots[i] or 0, n)
    end
    if length ~= #list then return nil end
    return width, slots
end

-- the window as it counts now, in slots of the width given; moved if some of
-- it had to come from the future to the present slot
local function window_view(value, width)
    local v = { width = width, newest = div(now, width), used = 0, slot = {} }
    local old, slots = window_parse(value)
    for i, n in pairs(slots or {}) do
        if old ~= width then i = div((i + 1) * old - 1, width) end
        if i > v.newest then
            i, v.moved = v.newest, true
        end
        if i + 64 >= v.newest then
            v.slot[i] = add(v.slot[i] or 0, n)
            v.used = add(v.used, n)
        end
    end
    return v
end

-- the field and when it expires; nil if nothing counts
local function window_text(v)
    local text, expires = { string.format('w %.0f', v.width) }, nil
    for i = v.newest - 64, v.newest do
        local n = v.slot[i] or 0
        if n > 0 then
            text[#text + 1] = string.format('%.0f:%.0f', i, n)
            expires = (i + 65) * v.width
        end
    end
    return expires and table.concat(text, ' '), expires
end

local function bucket_tat(value)
    local tat = tonumber((string.match(value or '', '^b (%d+)$')))
    return tat and tat <= NEVER and tat or 0
end

local function bucket_text(tat)
    return string.format('b %.0f', tat), tat
end

-- the values of fields of a hash; and whether the key is of another type
local function read(key, fields)
    local values = redis.pcall('HMGET', key, unpack(fields))
    if not values.err then return values, false end
    if not string.find(values.err, '^WRONGTYPE') then error(values.err, 0) end
    return {}, true
end

-- the key lives as long as anything in it counts, and a second
local function keep(key, expires)
    local ttl = math.max(div(expires - now, 1000), 0) + 1000
    if redis.call('PTTL', key) < ttl then
        redis.call('PEXPIRE', key, string.format('%.0f', ttl))
    end
end
