-- Sets whose members expire; tests/vectors/sets.txt says what they mean, for
-- this and for module/core/mpol_set.c.  Loaded behind store.lua.
--
-- A set is a zset: member -> when it expires, in microseconds.
--   lease   leases of sessions
--   failed  tags of (login, password) pairs that failed
--   exempt  tags of (login, client) pairs that succeeded

-- nil if it is not there, or has expired; and whether the key is of another
-- type
local function set_expires(key, member)
    local score = try('ZSCORE', key, member)
    local expires = tonumber(score or nil)
    return expires and expires > now and expires or nil, score == nil
end

-- how many expire then or later; nil if the key is of another type
local function set_count(key, since)
    return try('ZCOUNT', key, since, '+inf')
end

-- when number i of those that are left expires, in order of that
local function set_nth(key, i)
    return tonumber(redis.call('ZRANGE', key, now + 1, '+inf', 'BYSCORE',
        'LIMIT', i - 1, 1, 'WITHSCORES')[2])
end

-- what expires later than it could if it was added now, expires then
local function set_bring(key, last)
    local late = redis.call('ZRANGE', key, last + 1, '+inf', 'BYSCORE')
    for _, member in ipairs(late) do
        redis.call('ZADD', key, last, member)
    end
    keep(key, last)
end

-- takes away what has expired
local function set_prune(key)
    return try('ZREMRANGEBYSCORE', key, '-inf', now)
end

-- adds it, or changes when it expires
local function set_add(key, member, expires)
    redis.call('ZADD', key, expires, member)
    keep(key, expires)
end
