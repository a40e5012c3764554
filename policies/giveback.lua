-- Takes back what charge.lua charged and what was not used.  Call it once.
-- Loaded as counter.lua followed by this file.
--
-- KEYS  one used key a limit
-- ARGV  at (the [2] of charge's answer); per limit: nunits; per unit: name,
--       kind, count, period, burst (the rate that charge answered), amount
-- Fields as in charge.lua.  Makes no key and goes nowhere below 0; a field
-- in which nothing is left is deleted.  A key that is no hash is left alone.
-- Returns { number of limits that were written }.

local at = tonumber(ARGV[1])

-- in the width that the counter has now, see mpol_counter.c
local function back_window(value, period, amount)
    local width, own = window_parse(value), div(period, 64)
    if not width then return nil end
    local v, i = window_view(value, width), div(at, own)
    if own ~= width then i = div((i + 1) * own - 1, width) end
    i = math.min(i, v.newest)
    local n = v.slot[i] or 0
    if n == 0 then return nil end
    v.slot[i] = math.max(n - amount, 0)
    local text, expires = window_text(v)
    return text or '', expires
end

local function back_bucket(value, count, period, burst, amount)
    local tat = bucket_tat(value)
    local last = add(at, muldiv(burst, period, count))
    if tat <= now or last <= now then return nil end
    tat = tat - math.min(muldiv(amount, period, count), last - now)
    if tat <= now then return '' end
    return bucket_text(tat)
end

local a, touched = 1, 0
local function arg()
    a = a + 1
    return tonumber(ARGV[a]) or ARGV[a]
end

for _, key in ipairs(KEYS) do
    local written = 0
    for _ = 1, arg() do
        local name, kind, count, period, burst, amount =
            arg(), arg(), arg(), arg(), arg(), arg()
        local value = read(key, { name })[1]
        local text, expires
        if amount > 0 and kind == WINDOW then
            text, expires = back_window(value, period, amount)
        elseif amount > 0 and kind == BUCKET then
            text, expires = back_bucket(value, count, period, burst, amount)
        end
        if text == '' then
            redis.call('HDEL', key, name)
            written = 1
        elseif text then
            redis.call('HSET', key, name, text)
            keep(key, expires)
            written = 1
        end
    end
    touched = touched + written
end

return { touched }
