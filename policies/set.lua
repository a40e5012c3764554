-- Sets rates in an own entry, in the entry of a domain or of all, or in a plan;
-- what an edge could not read is not written.
--
--     redis-cli --eval set.lua 'mail:limit:user:{alice@example.com}' , \
--         messages 500/1h note 'by phone'
--     redis-cli --eval set.lua mail:plan:gold , user.messages 500/1h
--
-- KEYS  [1] an entry, or a plan; nothing else is touched
-- ARGV  field and value, field and value, ...  Fields of an entry are units,
--       plan and note; of a plan <limit>.<unit> and note.  The value - takes
--       the field away.
-- All is written or nothing, without TTL.  Returns lines of text.
-- The marked parts are those of show.lua.

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

local NO_NAME = 'plan %s: not a name, write 1 to 64 letters, digits, _ and -'

local key = KEYS[1] or ''
local is_plan = string.match(key, '^.*plan:([^:{}]+)$')
local lines, wrong, wide = {}, nil, true

local function refuse(...)
    wrong = true
    lines[#lines + 1] = string.format(...)
end

-- how many letters have to be changed
local function distance(a, b)
    local row = {}
    for j = 0, #b do row[j] = j end
    for i = 1, #a do
        local diagonal = row[0]
        row[0] = i
        for j = 1, #b do
            local same = string.byte(a, i) == string.byte(b, j)
            local least = math.min(row[j], row[j - 1]) + 1
            diagonal, row[j] = row[j],
                math.min(diagonal + (same and 0 or 1), least)
        end
    end
    return row[#b]
end

local function nearest(name)
    local best, least = nil, 4
    for _, unit in ipairs(UNITS) do
        local d = distance(string.lower(string.sub(name, 1, 32)), unit)
        if d < least then best, least = unit, d end
    end
    return best and 'did you mean ' .. best .. '?'
        or 'units are ' .. table.concat(UNITS, ', ')
end

local function is_name(text)
    return #text <= 64 and string.find(text, '^[%w_-]+$')
end

-- the unit that a field sets, or nil; what is wrong with it is said
local function unit_of(field)
    local limit, unit = string.match(field, '^(.*)%.(.*)$')
    if is_plan and (not limit or not is_name(limit)) then
        refuse('%s: write <limit>.<unit>, for example user.messages',
            printable(field))
        return nil
    end
    if not is_plan and limit then
        refuse('%s: write the unit only, the limit is named by the key',
            printable(field))
        return nil
    end
    unit = unit or field
    for _, known in ipairs(UNITS) do
        if unit == known then return unit end
    end
    refuse('%s: no such unit, %s', printable(field), nearest(unit))
end

local function check(field, value)
    if field == 'note' then return end
    if field == 'plan' and not is_plan then
        if value ~= '-' and not is_name(value) then
            refuse(NO_NAME, printable(value))
        end
        return
    end
    if field == 'suspended' and not is_plan then
        refuse('suspended: suspend.lua and resume.lua do that')
        return
    end
    local unit = unit_of(field)
    if not unit or value == '-' then return end
    local kind, why = parse(unit, value)
    if not kind then
        refuse('%s %s: %s', printable(field), printable(value), why)
    end
end

if #KEYS ~= 1 or #ARGV == 0 or #ARGV % 2 ~= 0 then
    refuse("write: set.lua 'mail:limit:user:{alice@example.com}' , "
        .. 'messages 500/1h (one key, a comma between spaces, then field and '
        .. 'value, field and value)')
elseif is_plan and not is_name(is_plan) then
    refuse(NO_NAME, printable(is_plan))
elseif not is_plan then
    local name, tag = split(key)
    if not name then
        refuse('%s', tag)
    else
        wide = tag == '*' or string.find(tag, '^@')
        key = name('limit')
    end
end

for i = 1, wrong and 0 or #ARGV, 2 do check(ARGV[i], ARGV[i + 1]) end

local found = not wrong and redis.call('TYPE', key).ok
if found and found ~= 'hash' and found ~= 'none' then
    refuse('%s is a %s, not a hash: delete it first', printable(key), found)
end

if wrong then
    lines[#lines + 1] = 'NOTHING WAS WRITTEN'
    return lines
end

for i = 1, #ARGV, 2 do
    local field, value = ARGV[i], ARGV[i + 1]
    local was = redis.call('HGET', key, field)
    if value == '-' then
        redis.call('HDEL', key, field)
    else
        redis.call('HSET', key, field, value)
    end
    lines[#lines + 1] = string.format('%s: %s, was %s', field,
        value == '-' and 'taken away' or printable(value),
        was and printable(was) or 'not set')
end

lines[#lines + 1] = 'in force '
    .. (wide and 'within 2 seconds' or 'from the next message on')
return lines
