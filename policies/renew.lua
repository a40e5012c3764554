-- Renews leases of sessions, or adds them where they have been lost.
--
-- KEYS  lease keys, one a lease
-- ARGV  period, then the lease in each key
-- Writes the keys, each with a TTL; takes away what has expired.  A key of
-- another type is left alone.
-- Returns { number of keys that were written }.

local expires, written = now + ARGV[1], 0

for i, key in ipairs(KEYS) do
    if set_prune(key) then
        set_add(key, ARGV[i + 1], expires)
        written = written + 1
    end
end

return { written }
