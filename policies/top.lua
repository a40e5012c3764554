-- The keys that are nearest to their limit, the fullest first.
--
--     redis-cli --eval top.lua 'mail:used:user:*' , 10 10000
--     redis-cli --eval top.lua , 'mail:used:user:*' 10 10000
--
-- KEYS  [1] not a key but a pattern, as of SCAN, for keys of one kind: used,
--       limit (those that have an own entry), lease or failed.  A node of a
--       Redis Cluster takes it behind the comma only, because a pattern has
--       no slot, and looks at its own keys.
-- ARGV  how many to show (10); how many keys of the database to look at
--       (10000), those that the pattern leaves out included, and less if they
--       have much in them; where to go on (0), as the last line of an answer
--       that is not complete says
-- Reads, of each key that matches, used and limit, or lease or failed.  Writes
-- nothing.  Redis serves nobody else meanwhile: that is why it is bounded.
-- Returns lines of text.
-- The marked parts are those of show.lua.

-- shared
local NEVER, MAX = 9007199254740992, 1099511627776
local WINDOW, BUCKET, UNLIMITED, BLOCKED = 1, 2, 3, 4
-- end

-- shared
local function printable(text)
    return (string.gsub(string.sub(text, 1, 200), '[^ -~]', function(c)
        return string.format('\\x%02X', string.byte(c))
    end))
end
-- end

-- shared
local function is_suspended(word)
    word = string.lower(word or '')
    return word ~= '' and word ~= '0' and word ~= 'no'
end
-- end

-- shared
local function div(a, b)
    return (a - a % b) / b
end

-- ceil(n * a / b), at most 2^53, as in counter.lua
local function muldiv(n, a, b)
    local whole, rest, q, r = div(a, b), a % b, 0, 0
    local place = 562949953421312
    while place >= 1 do
        r = r * 128 + div(n, place) % 128 * rest
        q = q * 128 + div(r, b)
        r = r % b
        place = place / 128
    end
    if r > 0 then q = q + 1 end
    return math.min(whole * n + q, NEVER)
end
-- end

-- shared
-- kind, count, period, burst; or nil and what to write instead
local function parse(unit, text)
    local ZERO = '0 is ambiguous, write unlimited or blocked'
    local RANGE = 'number out of range: counts are 1 to 2^40, a period is '
        .. '1 second to 366 days, a burst refills within 142 years'
    local SUFFIX = 'k, m and g are for bytes only, write the number in full'
    local MULTIPLE = { [''] = 1, k = 1024, m = 1048576, g = 1073741824 }
    local SECONDS = { s = 1, m = 60, h = 3600, d = 86400, w = 604800 }
    text = string.lower(text)
    if text == 'unlimited' then return UNLIMITED, 0, 0, 0 end
    if text == 'blocked' then return BLOCKED, 0, 0, 0 end
    if unit == 'sessions' then
        local n, k = string.match(text, '^(%d+)([kmg]?)$')
        if not n then
            return nil, 'not a number of sessions, write for example 20, '
                .. 'unlimited or blocked'
        end
        if k ~= '' then return nil, SUFFIX end
        n = tonumber(n)
        if n == 0 then return nil, ZERO end
        if n > MAX then return nil, RANGE end
        return WINDOW, n, 0, 0
    end
    if string.find(text, '^0+[kmg]?$') then return nil, ZERO end
    local count, k, period, letter, rest =
        string.match(text, '^(%d+)([kmg]?)/(%d*)([smhdw])(.*)$')
    local burst, burst_k = string.match(rest or '', '^,burst=(%d+)([kmg]?)$')
    if not count or rest ~= '' and not burst then
        return nil, 'not a rate, write for example 500/1h, '
            .. (unit ~= 'auth_failures' and '500/1h,burst=20, ' or '')
            .. 'unlimited or blocked'
    end
    if unit == 'auth_failures' and burst then
        return nil, 'failed logins have no burst, write for example 10/15m'
    end
    if unit ~= 'bytes' and k .. (burst_k or '') ~= '' then
        return nil, SUFFIX
    end
    count = tonumber(count) * MULTIPLE[k]
    period = (tonumber(period) or 1) * SECONDS[letter]
    if count == 0 then return nil, ZERO end
    if count > MAX or period < 1 or period > 366 * 86400 then
        return nil, RANGE
    end
    period = period * 1000000
    if not burst then return WINDOW, count, period, 0 end
    burst = tonumber(burst) * MULTIPLE[burst_k]
    if burst < 1 or burst > MAX
        or muldiv(burst, period, count) > NEVER / 2 then return nil, RANGE end
    return BUCKET, count, period, burst
end
-- end

-- shared
-- a counter as it is written, or nil: kind, count, period, burst, from, and
-- the slots of a window or the tat of a bucket
local function read(value)
    if not value or #value > 2048 then return nil end
    local width, count, from, list = string.match(value,
        '^w (%d+) (%d+) ([c*p@k])( .*)$')
    if not width then
        local tat, n, period, burst, by = string.match(value,
            '^b (%d+) (%d+) (%d+) (%d+) ([c*p@k])$')
        tat, burst = tonumber(tat), tonumber(burst)
        n, period = tonumber(n), tonumber(period)
        if not tat or tat > NEVER or n < 1 or n > MAX or period < 1
            or period > 31622400000000 or burst < 1 or burst > MAX then
            return nil
        end
        return { kind = BUCKET, count = n, period = period, burst = burst,
                 from = by, tat = tat }
    end
    width, count = tonumber(width), tonumber(count)
    local c = { kind = WINDOW, count = count, period = width * 64,
                burst = 0, from = from, width = width, slots = {} }
    local i, length = 0, 0
    for d, n in string.gmatch(list, ' (%d+):(%d+)') do
        length = length + #d + #n + 2
        i, n = i + tonumber(d), tonumber(n)
        if (i + 1) * width >= NEVER or n > NEVER then return nil end
        c.slots[i] = math.min((c.slots[i] or 0) + n, NEVER)
    end
    if width < 1 or count < 1 or length ~= #list then return nil end
    return c
end
-- end

-- shared
-- used and remaining of a counter at the rate r, when one more will fit, and
-- when nothing will count any more; r is of the kind window or bucket
local function judge(c, r, now)
    if r.kind == BUCKET then
        local depth = muldiv(r.burst, r.period, r.count)
        local tat = c and c.kind == BUCKET and c.tat or 0
        local level = math.min(math.max(tat - now, 0), depth)
        local used = math.min(muldiv(level, r.count, r.period), r.burst)
        local left = r.burst - used
        if used == 0 then return 0, left end
        local cost = muldiv(left + 1, r.period, r.count)
        return used, left, cost - depth + level, level
    end
    local width, slots, used = div(r.period, 64), {}, 0
    local newest = div(now, width)
    for i, n in pairs(c and c.slots or {}) do
        if c.width ~= width then i = div((i + 1) * c.width - 1, width) end
        i = math.min(i, newest)
        if i + 64 >= newest then
            slots[i] = math.min((slots[i] or 0) + n, NEVER)
            used = math.min(used + n, NEVER)
        end
    end
    local sum, soon, all = 0, nil, nil
    for i = newest, newest - 64, -1 do
        local n, gone = slots[i] or 0, (i + 65) * width - now
        sum = sum + n
        if n > 0 then all = all or gone end
        if n > 0 and sum >= math.min(used, r.count) then soon = soon or gone end
    end
    return used, math.max(r.count - used, 0), soon, all
end
-- end

-- shared
local function rate_text(r)
    if r.kind == UNLIMITED then return 'unlimited' end
    if r.kind == BLOCKED then return 'blocked' end
    if r.period == 0 then return string.format('%.0f', r.count) end
    local n, letter = r.period / 1000000, 's'
    for _, x in ipairs({ { 'w', 604800 }, { 'd', 86400 }, { 'h', 3600 },
                         { 'm', 60 } }) do
        if letter == 's' and n % x[2] == 0 then
            n, letter = n / x[2], x[1]
        end
    end
    return string.format('%.0f/%.0f%s', r.count, n, letter)
        .. (r.kind == BUCKET and string.format(',burst=%.0f', r.burst) or '')
end
-- end

local pattern, a = KEYS[1], 0
if not pattern then pattern, a = ARGV[1], 1 end
local n, most = tonumber(ARGV[a + 1] or 10), tonumber(ARGV[a + 2] or 10000)
local cursor = ARGV[a + 3] or '0'
local prefix, kind
for _, x in ipairs({ 'used', 'limit', 'lease', 'failed' }) do
    local head = string.match(pattern or '', '^([^*?[\\]*)' .. x .. ':')
    if head then prefix, kind = head, x end
end
if not kind or not n or not most or n < 1 or n > 1000 or most < 1
    or not string.find(cursor, '^%d+$') then
    return { "write: top.lua 'mail:used:user:*' , 10 10000 (a pattern for "
        .. 'keys of one kind, how many to show, how many to look at)' }
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local since = string.format('(%.0f', now)
local shown, octets = {}, 0

-- keeps the n fullest, in order; of those equally full, the most used
local function offer(full, used, ...)
    local i = #shown
    while i > 0 and (shown[i].full < full
        or shown[i].full == full and shown[i].used < used) do
        if i < n then shown[i + 1] = shown[i] end
        i = i - 1
    end
    if i < n then shown[i + 1] = { full = full, used = used, ... } end
end

-- no less than how full a counter is, and quickly: it decides which of them
-- are worth the arithmetic
local function at_most(value)
    octets = octets + #value
    local count, list = string.match(value, '^w %d+ (%d+) .(.*)')
    if not count then
        local tat, n, period, burst =
            string.match(value, '^b (%d+) (%d+) (%d+) (%d+)')
        if not tat or tonumber(tat) <= now then return 0 end
        return ((tat - now) * n / period + 1) / burst
    end
    local sum = 0
    for n in string.gmatch(list, ':(%d+)') do sum = sum + n end
    return sum / count
end

local NOTHING = {}

-- the own entry's fields, and whether it is suspended
local function entry(rest)
    local flat = redis.pcall('HGETALL', prefix .. 'limit' .. rest)
    if #flat == 0 then return NOTHING, false end
    local own = {}
    for i = 1, #flat, 2 do own[flat[i]] = flat[i + 1] end
    return own, is_suspended(own.suspended)
end

local function own_rate(own, unit)
    local kind, count, period, burst = parse(unit, own[unit] or '')
    return kind and { kind = kind, count = count, period = period,
                      burst = burst, from = 'k' }
end

local function look_set(name, unit)
    local rest = string.sub(name, #prefix + #kind + 1)
    local used = redis.pcall('ZCOUNT', name, since, '+inf')
    if type(used) ~= 'number' or used == 0 then return end
    local r = own_rate(entry(rest), unit)
    offer(r and r.kind == WINDOW and used / r.count or 0, used, rest, unit, r)
end

local function look(name)
    local rest = string.sub(name, #prefix + #kind + 1)
    local fields = redis.pcall('HGETALL', prefix .. 'used' .. rest)
    local own, suspended = entry(rest)
    local least = shown[n] and shown[n].full or 0
    if suspended then offer(1, 0, rest, 'every unit', { kind = BLOCKED }) end
    for i = 1, suspended and 0 or #fields, 2 do
        local unit, value = fields[i], fields[i + 1]
        if own[unit] or at_most(value) > least then
            local c = read(value)
            local r = own[unit] and own_rate(own, unit) or c
            if r and r.kind == BLOCKED then
                offer(1, 0, rest, unit, r)
            elseif r and r.kind ~= UNLIMITED then
                local used, left = judge(c, r, now)
                if used > 0 then
                    offer(used / (r.kind == BUCKET and r.burst or r.count),
                        used, rest, unit, r, left)
                end
            end
        end
    end
end

local calls, found = 0, 0
repeat
    local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
    cursor, calls = page[1], calls + 1
    for _, name in ipairs(page[2]) do
        if kind == 'lease' then look_set(name, 'sessions')
        elseif kind == 'failed' then look_set(name, 'auth_failures')
        else look(name) end
    end
    found = found + #page[2]
until cursor == '0' or calls * 1000 >= most or octets >= most * 200

local FROM = { c = 'configuration', k = 'own entry', p = 'plan',
               ['@'] = 'domain', ['*'] = 'default' }
local lines = {}

for i, x in ipairs(shown) do
    local rest, unit, r, left = unpack(x)
    local text = string.format('%.0f of %s', x.used, unit)
    if r and r.kind == BLOCKED then
        text = string.format('%s: blocked by own entry', unit)
    elseif r and r.kind ~= UNLIMITED then
        text = string.format('%.0f%% %s: %.0f of %.0f used%s; %s from %s',
            math.floor(x.full * 100), unit, x.used,
            r.kind == BUCKET and r.burst or r.count,
            left == 0 and ', blocked now' or '', rate_text(r), FROM[r.from])
    end
    lines[i] = text .. '  ' .. printable(prefix .. kind .. rest)
end

if cursor ~= '0' then
    lines[#lines + 1] = string.format('NOT COMPLETE, stopped after about %.0f '
        .. 'of %.0f keys; the others: %.0f %.0f %s behind the comma',
        calls * 1000, redis.call('DBSIZE'), n, most, cursor)
elseif found == 0 then
    lines[1] = 'no key matches: ' .. printable(pattern)
elseif #lines == 0 then
    lines[1] = string.format('nothing counts in %.0f keys', found)
end
return lines
