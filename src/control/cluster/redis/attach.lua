-- Begins a connection. A further key: the list of runs, 'TAG SERVER SEQUENCE': each time that
-- another process served the log, a number drawn at random, and the last sequence that the log had
-- when the first node came. Nothing is lost of what a node has seen if no run since the one that it
-- knows has begun with less. Draws an epoch for a new log, and for one that has lost something that
-- the node has seen. Returns {EPOCH, LAST, TAG}.
local RUNS = KEYS[6]
local known_epoch, known_tag, seen = ARGV[1], ARGV[2], tonumber(ARGV[3])
local server, drawn = ARGV[4], ARGV[5]
local MAX_RUNS = 64

local meta = redis.call('HMGET', META, 'e', 'q')
local epoch, last = meta[1], meta[2]
if not (epoch and last) then
  redis.call('UNLINK', META, LOG, KEPT, ENDS, MARKS, RUNS)
  redis.call('HSET', META, 'e', drawn, 'q', 0, 's', 0, 'c', 0, 'h', 0, 'k', 0, 'x', '0')
  epoch, last = drawn, '0'
end

local function read(run)
  return string.match(run, '^(%d+) (%S+) (%d+)$')
end

local tag, name
local newest = redis.call('LINDEX', RUNS, -1)
if newest then tag, name = read(newest) end
if name ~= server then
  tag = drawn
  redis.call('RPUSH', RUNS, tag .. ' ' .. server .. ' ' .. last)
  redis.call('LTRIM', RUNS, -MAX_RUNS, -1)
end

local function is_lost()
  local runs = redis.call('LRANGE', RUNS, 0, -1)
  for index = #runs, 1, -1 do
    local of, _, sequence = read(runs[index])
    if of == known_tag then return false end
    if tonumber(sequence) < seen then return true end
  end
  -- That run is one of those that were lost, or was long ago.
  return true
end

-- Of several nodes that have lost something only the first one still knows the epoch.
if known_epoch == epoch and known_tag ~= tag and is_lost() then
  redis.call('HSET', META, 'e', drawn)
  epoch = drawn
end
return {epoch, last, tag}
