-- One step of a key's account, atomic: reserve before the model runs, or settle after. See redis_budgets.py.
--
-- KEYS[1]  prefix of all that belongs to the key; as a hash: tokens, at (the bucket), flying (texts)
-- KEYS[2]  leases: a ticket for each reservation, by the time at which it ends
-- KEYS[3]  what the operation has been charged for: a field a text; may be empty
-- prefix:DAY and prefix:MONTH are hashes of queries, units, nano (dollars) and flying_queries, flying_units
local a = cjson.decode(ARGV[1])
local prefix, leases, operation = KEYS[1], KEYS[2], KEYS[3]
local DAYS = 86400

local function count(key, field) return tonumber(redis.call('HGET', key, field) or 0) end

local function add(day, fields)
  for period, days in pairs({[prefix .. ':' .. day] = 40, [prefix .. ':' .. day:sub(1, 7)] = 400}) do
    for field, by in pairs(fields) do redis.call('HINCRBY', period, field, by) end
    redis.call('EXPIRE', period, days * DAYS)
  end
end

-- of a month's first units, in billionths of a dollar
local function price(units)
  local total, start = 0, a.free
  for _, tier in ipairs(a.tiers) do
    local stop = tier[1] < 0 and units or math.min(units, tier[1])
    total = total + math.max(0, stop - start) * tier[2]
    start = math.max(start, stop)
  end
  return total
end

-- Gives a reservation back; its day, or false if it has ended already.
local function release(ticket)
  if redis.call('ZREM', leases, ticket) == 0 then return false end
  local queries, units, day = ticket:match('^%S+ (%d+) (%d+) (%S+)$')
  redis.call('HINCRBY', prefix, 'flying', -queries)
  add(day, {flying_queries = -queries, flying_units = -units})
  return day
end

local function reserve()
  local time, limits = redis.call('TIME'), a.limits
  local now = time[1] + time[2] / 1000000
  -- Whoever held these has died: no request lives as long as a lease.
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)) do release(dead) end

  local known = operation ~= '' and #a.texts > 0 and redis.call('HMGET', operation, unpack(a.texts)) or {}
  local queries, units, seen, paid = 0, 0, {}, {}
  for i, text in ipairs(a.texts) do
    if known[i] then
      table.insert(paid, i - 1)
    elseif a.units[i] > 0 and not seen[text] then
      queries, units, seen[text] = queries + 1, units + a.units[i], true
    end
  end

  local tokens, rate = nil, limits.texts_per_second
  if rate then
    local most = math.max(rate, 1)
    local at = tonumber(redis.call('HGET', prefix, 'at') or now)
    tokens = math.min(most, tonumber(redis.call('HGET', prefix, 'tokens') or most) + math.max(0, now - at) * rate)
    local needed = math.min(a.count, most)
    if tokens < needed then return {'texts_per_second', '', math.ceil(1000 * (needed - tokens) / rate)} end
  end
  if queries > 0 then
    local flying = count(prefix, 'flying')
    if limits.texts_in_flight and flying + queries > limits.texts_in_flight then
      return {'texts_in_flight', flying + queries, 0}
    end
    local month = prefix .. ':' .. a.day:sub(1, 7)
    local period = limits.per == 'day' and prefix .. ':' .. a.day or month
    local would = count(period, 'queries') + count(period, 'flying_queries') + queries
    if limits.queries and would > limits.queries then return {'queries', would, 0} end
    would = count(period, 'units') + count(period, 'flying_units') + units
    if limits.units and would > limits.units then return {'units', would, 0} end
    -- All in flight shares the month's tiers: priced together, it can only turn out cheaper.
    local before = count(month, 'units')
    would = count(period, 'nano') + price(before + count(month, 'flying_units') + units) - price(before)
    if limits.nano and would > limits.nano then return {'nano', would, 0} end
  end

  if tokens then redis.call('HSET', prefix, 'tokens', tokens - a.count, 'at', now) end
  if queries == 0 then return {'', '', unpack(paid)} end
  local ticket = table.concat({a.id, queries, units, a.day}, ' ')
  redis.call('ZADD', leases, now + a.lease, ticket)
  redis.call('HINCRBY', prefix, 'flying', queries)
  add(a.day, {flying_queries = queries, flying_units = units})
  return {'', ticket, unpack(paid)}
end

local function settle()
  local settled = prefix .. ':settled:' .. a.ticket
  local day = release(a.ticket)
  if not day then  -- settled before and the reply lost; or the lease has ended, and nothing is charged
    local before = redis.call('GET', settled)
    return before and cjson.decode(before) or {0, 0, 0, 0}
  end
  local queries, units = 0, 0
  for i, text in ipairs(a.texts) do
    if operation == '' or redis.call('HSETNX', operation, text, 1) == 1 then
      queries, units = queries + 1, units + a.units[i]
    end
  end
  if operation ~= '' then redis.call('EXPIRE', operation, 2 * DAYS) end
  local before = count(prefix .. ':' .. day:sub(1, 7), 'units')
  local nano = price(before + units) - price(before)
  if queries > 0 then add(day, {queries = queries, units = units, nano = nano}) end
  local text = string.format('[1,%d,%d,%d]', queries, units, nano)
  redis.call('SET', settled, text, 'EX', a.lease)
  return {1, queries, units, nano}
end

return a.step == 'reserve' and reserve() or settle()
