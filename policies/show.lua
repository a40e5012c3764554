-- What is counted under a key, what its limits are and where they come from.
--
--     redis-cli --eval show.lua 'mail:used:user:{alice@example.com}'
--
-- KEYS  [1] any of the keys used, limit, lease, failed and exempt of one limit
--       and one key.  The others are made from it: their hash tag is the same,
--       so that all of them are in one slot of a Redis Cluster.
-- Reads used: counters, with the rate that charged last and where it was from;
--       limit: the own entry, whose rates go before; lease, failed, exempt:
--       members by when they expire.  Writes nothing.
-- Returns lines of text.
--
-- Longer than other scripts because "redis-cli --eval" loads one file.  What
-- is marked "shared" is the same in every file that has it, see lint.sh; the
-- arithmetic is that of module/core/mpol_counter.h, the grammar that of
-- module/core/mpol_rate.h.

-- shared
local NEVER, MAX = 9007199254740992, 1099511627776
local WINDOW, BUCKET, UNLIMITED, BLOCKED = 1, 2, 3, 4
-- end

-- shared
local UNITS = { 'messages', 'recipients', 'bytes', 'connections', 'sessions',
                'auth_failures' }
-- end

-- shared
local function printable(text)
    return (string.gsub(string.sub(text, 1, 200), '[^ -~]', function(c)
        return string.format('\\x%02X', string.byte(c))
    end))
end
-- end

-- shared
-- a function that makes the key of another kind, and the key in the braces;
-- or nil and what is wrong
local function split(key)
    local head, limit, tag =
        string.match(key or '', '^(.*)(:[%w_-]+:){([^{}]+)}$')
    for _, kind in ipairs({ 'used', 'limit', 'lease', 'failed', 'exempt' }) do
        local prefix = string.match(head or '', '^(.*)' .. kind .. '$')
        if prefix then
            local bare = string.gsub(tag, '%%[0-9A-F][0-9A-F]', '')
            if #tag > 128 or string.find(bare, '[^!-$&-@[-z|~]') then
                return nil, 'No key has this form: letters are in lower case, '
                    .. 'octets outside of 33 to 126, {, } and % are %XX: '
                    .. printable(string.lower(tag))
            end
            return function(other)
                return prefix .. other .. limit .. '{' .. tag .. '}'
            end, tag
        end
    end
    return nil, 'Not a key of a limit, write it as '
        .. 'mail:limit:user:{alice@example.com}: ' .. printable(key or '')
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

local key, tag = split(KEYS[1])
if not key then return { tag } end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local lines = {}

local function say(...)
    lines[#lines + 1] = string.format(...)
end

-- whether a key is there, and of the type that it should be
local function is(kind, type)
    local found = redis.call('TYPE', key(kind)).ok
    if found ~= type and found ~= 'none' then
        say('%s is a %s, not a %s: it is left alone, delete it',
            printable(key(kind)), found, type)
    end
    return found == type
end

local function seconds(time)
    return div(time + 999999 - (time + 999999) % 1000000, 1000000)
end

local function from(letter, plan)
    local domain = string.match(tag, '@[^@]*$')
    domain = domain and 'domain ' .. domain or 'domain'
    if letter == 'p' then return plan and 'plan ' .. plan or 'a plan' end
    return ({ c = 'configuration', k = 'own entry', ['*'] = 'default',
              ['@'] = domain })[letter]
end

-- one line for a unit; r is the rate in force, nil if it is not kept in Redis
local function report(unit, r, by, used, left, soon, all)
    local line = { string.format('%s: %.0f', unit, used) }
    local function add(...) line[#line + 1] = string.format(...) end
    if r then
        add(' of %.0f used, %.0f left', r.kind == BUCKET and r.burst
            or r.count, left)
        if left == 0 then add(', blocked now') end
    else
        add(' used')
    end
    if soon then
        add('; next in %.0f s, all in %.0f s', seconds(soon), seconds(all))
    end
    add('; %s', r and rate_text(r) .. ' from ' .. by
        or 'the limit is that of the edges, no own entry')
    say('%s', table.concat(line))
end

-- the members of a set that have not expired, when one more fits, and when all
-- have; r is the rate in force, if it is known
local function members(kind, r)
    local name = key(kind)
    local room = r and r.count or NEVER
    local longest = r and r.period > 0 and r.period or NEVER
    local used = redis.call('ZCOUNT', name, string.format('(%.0f', now), '+inf')
    if used == 0 then return 0 end
    local function expires(back)
        local i = string.format('%.0f', -back)
        local score = redis.call('ZRANGE', name, i, i, 'WITHSCORES')[2]
        return math.min(tonumber(score) - now, longest)
    end
    return used, expires(math.min(used, room)), expires(1)
end

local own = {}
if is('limit', 'hash') then
    local flat = redis.call('HGETALL', key('limit'))
    for i = 1, #flat, 2 do own[flat[i]] = flat[i + 1] end
end

local plan = own.plan
if plan and (#plan > 64 or not string.find(plan, '^[%w_-]+$')) then
    say('plan: %s is skipped: not a name, write 1 to 64 letters, digits, _ '
        .. 'and -', printable(plan))
    plan = nil
end

if is_suspended(own.suspended) then
    say('suspended: every unit is blocked')
end
if plan then say('plan: %s', plan) end
if own.note then say('note: %s', printable(own.note)) end

local rates, known = {}, { plan = true, suspended = true, note = true }
for _, unit in ipairs(UNITS) do
    known[unit] = true
    if own[unit] then
        local kind, count, period, burst = parse(unit, own[unit])
        if kind then
            rates[unit] = { kind = kind, count = count, period = period,
                            burst = burst }
        else
            say('%s: %s is skipped: %s', unit, printable(own[unit]), count)
        end
    end
end

local unknown = {}
for field in pairs(own) do
    if not known[field] then unknown[#unknown + 1] = printable(field) end
end
table.sort(unknown)
for _, field in ipairs(unknown) do
    say('%s: unknown field, it limits nothing; units are %s', field,
        table.concat(UNITS, ', '))
end

local counted = is('used', 'hash')
local sets = { sessions = is('lease', 'zset') and 'lease',
               auth_failures = is('failed', 'zset') and 'failed' }

for _, unit in ipairs(UNITS) do
    local r, by, set = rates[unit], 'own entry', sets[unit]
    local c = counted and read(redis.call('HGET', key('used'), unit))
    if not r and c then r, by = c, from(c.from, plan) end
    if r and (r.kind == UNLIMITED or r.kind == BLOCKED) then
        say('%s: %s from %s', unit, rate_text(r), by)
    elseif set then
        local used, soon, all = members(set, r)
        report(unit, r, by, used, r and math.max(r.count - used, 0), soon, all)
    elseif r and (unit == 'sessions' or unit == 'auth_failures') then
        report(unit, r, by, 0, r.count)
    elseif r then
        report(unit, r, by, judge(c, r, now))
    end
end

local exempt = is('exempt', 'zset') and members('exempt') or 0
if exempt > 0 then
    say('auth_failures: twice as many for logins that succeeded from a client: '
        .. '%.0f', exempt)
end

if #lines == 0 then
    say('nothing is counted, and there is no own entry: %s', printable(tag))
end
return lines
