-- The first piece of every script: the store's time, numbers, keys.  A script
-- is loaded as the pieces that the file `config` names for it, itself the last.
-- All numbers are integers up to 2^53, all times microseconds.

local NEVER = 9007199254740992
local WINDOW, BUCKET, UNLIMITED, BLOCKED = 1, 2, 3, 4
local FROM, OWN = 'c*p@k', 4    -- configuration, default, plan, domain, own

local format, match, gmatch = string.format, string.match, string.gmatch
local max, min = math.max, math.min

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function div(a, b)
    return (a - a % b) / b
end

local function add(a, b)
    return b > NEVER - a and NEVER or a + b
end

-- ceil(n * a / b), b <= 2^45: where the product passes 2^53, base 128 keeps all
-- below that but what add() ends there
local function muldiv(n, a, b)
    if n * a + b < NEVER then return div(n * a + b - 1, b) end
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

-- the answer; nil if the key is of another type
local function try(...)
    local answer = redis.pcall(...)
    if type(answer) ~= 'table' or not answer.err then return answer end
    if not string.find(answer.err, '^WRONGTYPE') then error(answer.err, 0) end
    return nil
end

-- the key lives as long as anything in it counts, and a second
local function keep(key, expires)
    local ttl = max(div(expires - now, 1000), 0) + 1000
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
