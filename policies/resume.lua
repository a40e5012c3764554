-- Ends what suspend.lua did.
--
--     redis-cli --eval resume.lua 'mail:limit:user:{alice@example.com}'
--
-- KEYS  [1] an entry; also that of a domain, {@example.com}, or of all, {*}
-- Deletes the field suspended of the entry.  Returns lines of text.
-- The marked parts are those of show.lua.

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

local key, tag = split(KEYS[1])
if #KEYS > 1 then key, tag = nil, 'write one key' end
if not key then return { tag, 'NOTHING WAS WRITTEN' } end

local entry = key('limit')
local found = redis.call('TYPE', entry).ok
if found ~= 'hash' and found ~= 'none' then
    return { printable(entry) .. ' is a ' .. found .. ', not a hash: delete it '
        .. 'first', 'NOTHING WAS WRITTEN' }
end

local wide = tag == '*' or string.find(tag, '^@')
local note = redis.call('HGET', entry, 'note')
local lines = { 'was not suspended: ' .. tag }

if redis.call('HDEL', entry, 'suspended') == 1 then
    lines[1] = 'resumed: ' .. tag .. ', in force '
        .. (wide and 'within 2 seconds' or 'from the next message on')
end
if note then
    lines[2] = 'note, which stays: ' .. printable(note)
end
return lines
