-- Suspends a key: nothing that its limit counts passes any more, whatever the
-- rates are, until resume.lua.
--
--     redis-cli --eval suspend.lua 'mail:limit:user:{alice@example.com}' , \
--         'password stolen, ticket 4711'
--
-- KEYS  [1] an entry; also that of a domain, {@example.com}, or of all, {*}
-- ARGV  a note, which replaces the one that is there
-- Writes the fields suspended and note of the entry, without TTL.  Returns
-- lines of text.
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
if #KEYS > 1 then
    key, tag = nil, 'write one key, a comma between spaces, then the note'
end
if not key then return { tag, 'NOTHING WAS WRITTEN' } end

local entry = key('limit')
local found = redis.call('TYPE', entry).ok
if found ~= 'hash' and found ~= 'none' then
    return { printable(entry) .. ' is a ' .. found .. ', not a hash: delete it '
        .. 'first', 'NOTHING WAS WRITTEN' }
end

local wide = tag == '*' or string.find(tag, '^@')
local lines = { 'suspended: ' .. tag .. ', in force '
    .. (wide and 'within 2 seconds' or 'from the next message on') }

redis.call('HSET', entry, 'suspended', 'yes')
if #ARGV > 0 then
    local note = table.concat(ARGV, ' ')
    redis.call('HSET', entry, 'note', note)
    lines[2] = 'note: ' .. printable(note)
end
if redis.call('PTTL', entry) > 0 then
    lines[#lines + 1] = 'the entry has a TTL and the suspension ends with it; '
        .. 'PERSIST keeps it'
end
return lines
