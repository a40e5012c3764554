-- One question: judges all units of all limits, and charges all or none.
--
-- KEYS  for limit i of n: [2i-1] its used key, [2i] its own entry; behind them,
--       limit by limit: for one that asks sessions its lease key, for one that
--       asks auth_failures its failed key and its exempt key; all distinct
-- ARGV  n; per limit: flags, plan, nunits; per unit: name, kind, count, period,
--       burst, from, amount, member
--       flags: 1 soft, its refusal refuses nobody; 2 forced, rates and plan of
--       the own entry are not looked at; plan: the one that the own entry is
--       assumed to name; kind as in mpol_rate_kind_e; member: of sessions the
--       lease, of auth_failures "<tag> <exempt tag>"
-- Reads the fields named like the units in both hashes, and of the own entry
-- `plan` and `suspended`.  A rate there replaces the one given; what cannot be
-- read is skipped.  Writes the used keys and the sets, each with a TTL; when
-- refused, only what had to be brought from the future to now.  What has
-- expired in a set is taken away in any case.
-- Returns integers: 1 charged or 0 refused, now; per limit: bad; per unit:
--       fits, kind, count, period, burst, from, used, remaining, retry
--       (bad: bit u, the own entry's rate of unit u cannot be read; bit 29, its
--       plan; bit 30, a key of another type was left alone; 2^53 means never)
--    or 2, now, the plan that each own entry names: one is not the one given,
--       and nothing was written

local a, set = 1, 2 * ARGV[1]

local function unit_read(limit)
    local u = { name = ARGV[a + 1], kind = tonumber(ARGV[a + 2]),
        count = tonumber(ARGV[a + 3]), period = tonumber(ARGV[a + 4]),
        burst = tonumber(ARGV[a + 5]), from = tonumber(ARGV[a + 6]),
        amount = tonumber(ARGV[a + 7]), member = ARGV[a + 8],
        used = 0, remaining = NEVER, retry = 0, fits = true,
        value = false, view = false, moved = false }
    a = a + 8
    if u.name == 'sessions' then
        u.key, set = KEYS[set + 1], set + 1
    elseif u.name == 'auth_failures' then
        u.key, u.exempt, set = KEYS[set + 1], KEYS[set + 2], set + 2
        u.member, u.client = match(u.member, '^(%S*) (%S*)$')
    else
        limit.counts = true
    end
    return u
end

-- the limit, and the plan that its own entry names
local function limit_read(i)
    local flags, plan = ARGV[a + 1], ARGV[a + 2]
    local limit = { key = KEYS[2 * i - 1], bad = 0, names = {},
                    soft = flags % 2 == 1, forced = flags % 4 >= 2 }
    local n = tonumber(ARGV[a + 3])
    a = a + 3
    for u = 1, n do
        limit[u] = unit_read(limit)
        limit.names[u] = limit[u].name
    end
    limit.names[n + 1], limit.names[n + 2] = 'plan', 'suspended'
    local named = entry_read(limit, KEYS[2 * i])
    if limit.forced then named = plan end
    return limit, named, named ~= plan
end

local limits, plans, other, charged = {}, { 2, now }, false, 1

for i = 1, tonumber(ARGV[1]) do
    local limit, plan, differs = limit_read(i)
    limits[i], plans[i + 2], other = limit, plan, other or differs
end

if other then return plans end

for _, limit in ipairs(limits) do
    limit_judge(limit)
    if not limit.fits and not limit.soft then charged = 0 end
end

local answer, n = { charged, now }, 2

for _, limit in ipairs(limits) do
    limit_charge(limit, charged == 1 and limit.fits)
    n = n + 1
    answer[n] = limit.bad + (limit.alone and 2 ^ 30 or 0)
    for _, u in ipairs(limit) do
        answer[n + 1], answer[n + 2] = u.fits and 1 or 0, u.kind
        answer[n + 3], answer[n + 4], answer[n + 5], answer[n + 6] =
            u.count, u.period, u.burst, u.from
        answer[n + 7], answer[n + 8], answer[n + 9] =
            u.used, u.remaining, u.retry
        n = n + 9
    end
end

return answer
