-- Counts from nothing again.
--
--     redis-cli --eval reset.lua 'mail:used:user:{alice@example.com}'
--     redis-cli --eval reset.lua 'mail:used:client:{192.0.2.1}' , auth_failures
--
-- KEYS  [1] any key of a limit and a key of it, as in show.lua; used, failed
--       and lease are made from it and have the same hash tag
-- ARGV  units; none: all but sessions, which are open and renewed as before
-- Deletes used, or the units' fields in it, failed, lease; reads limit.  A key
-- of another type is left alone.  Returns lines of text.
-- The marked parts are those of show.lua.

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
local function is_suspended(word)
    word = string.lower(word or '')
    return word ~= '' and word ~= '0' and word ~= 'no'
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

local key, tag = split(KEYS[1])
if #KEYS > 1 then
    key, tag = nil, 'write one key, a comma between spaces, then the units'
end
if not key then return { tag, 'NOTHING WAS RESET' } end

local wanted, known = {}, {}
for _, unit in ipairs(UNITS) do
    known[unit] = true
    wanted[unit] = #ARGV == 0 and unit ~= 'sessions'
end
for _, unit in ipairs(ARGV) do
    if not known[unit] then
        return { printable(unit) .. ': no such unit, units are '
            .. table.concat(UNITS, ', '), 'NOTHING WAS RESET' }
    end
    wanted[unit] = true
end

local lines = {}

local function say(...)
    lines[#lines + 1] = string.format(...)
end

local function is(kind, type)
    local found = redis.call('TYPE', key(kind)).ok
    if found ~= type and found ~= 'none' then
        say('%s is a %s, not a %s: it is left alone, delete it',
            printable(key(kind)), found, type)
    end
    return found == type
end

local function forget(kind, unit)
    if not wanted[unit] or not is(kind, 'zset') then return end
    say('%s: %d forgotten', unit, redis.call('ZCARD', key(kind)))
    redis.call('DEL', key(kind))
end

if is('used', 'hash') then
    for _, unit in ipairs(UNITS) do
        if wanted[unit] and redis.call('HDEL', key('used'), unit) == 1 then
            say('%s: counted from nothing again', unit)
        end
    end
end

forget('lease', 'sessions')
forget('failed', 'auth_failures')

if #lines == 0 then say('nothing was counted: %s', printable(tag)) end

if is('limit', 'hash') then
    if is_suspended(redis.call('HGET', key('limit'), 'suspended') or '') then
        say('still suspended, resume.lua ends that')
    end
    for _, unit in ipairs(UNITS) do
        local text = redis.call('HGET', key('limit'), unit) or ''
        if string.lower(text) == 'blocked' then
            say('%s: still blocked by the own entry', unit)
        end
    end
end

return lines
