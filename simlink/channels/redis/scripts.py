"""What runs inside the server. Each script is atomic there; its keys share one hash tag.

Answers are arrays of integers and texts. ``XINFO`` answers flat lists of names and values.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = [
    "APPEND",
    "CLAIM",
    "FENCE",
    "GAPS",
    "GIVE_BACK",
    "JOIN",
    "LEASED_FETCH",
    "POSITION",
    "PURGE",
    "RELEASE",
    "RENEW",
    "SHARE",
    "TRIM",
    "Script",
]


class Script:
    """A script and the hash that EVALSHA knows it by."""

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        self.sha: Final = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


FENCE = Script("""
-- A sender takes its record (KEYS[1]) over for a new connection: from here on, calls that an older connection left
-- somewhere on the way are refused. ARGV: epoch, milliseconds to live. Answers whether the record was there, and the
-- last position that was appended.
local was = redis.call('GET', KEYS[1])
local last = was and string.match(was, ' (%S+)$') or '-1'
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. last, 'PX', ARGV[2])
return {was and 1 or 0, last}
""")

APPEND = Script("""
-- Append a batch, once, however often it comes. KEYS: the sender's record, the streams. ARGV: epoch, first position,
-- rows, milliseconds for the record to live, retention or 0, columns, ...
--   columns > 0: every row has the same fields: constants (their count, then names and values), the columns' names,
--                then the values row by row
--   columns = 0: each row as the count of its names and values, then these
-- With several streams each row begins with the number of its own, from 1.
local was = redis.call('GET', KEYS[1])
local epoch, last = string.match(was or '', '^(%S+) (%S+)$')
if epoch ~= ARGV[1] then
  return redis.error_reply('SIMLINKSTOPPED this sender has moved on')
end
local first, rows, columns = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
local many = #KEYS > 2
local head = {'XADD', KEYS[2]}
if ARGV[5] ~= '0' then
  head[3], head[4], head[5] = 'MAXLEN', '~', ARGV[5]
end
head[#head + 1] = '*'
local start = #head
local call, at, width = head, 7, nil
if columns > 0 then
  local constants = tonumber(ARGV[7])
  at = 8 + constants + columns
  for i = 1, columns do
    call[start + 2 * i - 1] = ARGV[7 + constants + i]
    call[start + 2 * i] = ''
  end
  for i = 1, constants do
    call[start + 2 * columns + i] = ARGV[7 + i]
  end
  width = columns + (many and 1 or 0)
end
local done = tonumber(last) + 1 - first
if done < 0 then done = 0 end
if width then at = at + width * math.min(done, rows) end
for row = 0, rows - 1 do
  local fresh = row >= done
  if width and fresh then
    if many then
      call[2] = KEYS[1 + tonumber(ARGV[at])]
      at = at + 1
    end
    for i = 1, columns do
      call[start + 2 * i] = ARGV[at]
      at = at + 1
    end
  elseif not width then
    local key = KEYS[2]
    if many then
      key = KEYS[1 + tonumber(ARGV[at])]
      at = at + 1
    end
    local count = tonumber(ARGV[at])
    if fresh then
      call = {unpack(head, 1, start)}
      call[2] = key
      for i = 1, count do call[start + i] = ARGV[at + i] end
    end
    at = at + 1 + count
  end
  if fresh then
    local answer = redis.pcall(unpack(call))
    if type(answer) == 'table' and answer.err then
      -- What stands before it stays. Nothing behind it may be appended before the sender knows.
      local note = redis.pcall('SET', KEYS[1], '- ' .. string.format('%.0f', first + row - 1), 'PX', ARGV[4])
      if note.err then redis.pcall('DEL', KEYS[1]) end
      return redis.error_reply('SIMLINKROW ' .. row .. ' ' .. answer.err)
    end
  end
end
local stop = first + rows - 1
if stop > tonumber(last) then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. string.format('%.0f', stop), 'PX', ARGV[4])
end
return rows
""")

_INFO = """
local function info(flat)
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end
local function less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  if am ~= bm then return #am < #bm or (#am == #bm and am < bm) end
  return #as < #bs or (#as == #bs and as < bs)
end
"""

JOIN = Script(
    _INFO
    + """
-- Make the group where it is missing. KEYS: the streams. ARGV: group, asked-for start or '', default start, 1 to move
-- a group that is there. Answers 1 made, 0 there, -1 there and not to be moved.
local there = {}
for i, key in ipairs(KEYS) do
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if not groups.err then
    for _, group in ipairs(groups) do
      if info(group)['name'] == ARGV[1] then there[i] = true end
    end
  elseif string.sub(groups.err, 1, 9) == 'WRONGTYPE' then
    return groups
  end
end
-- Consumers of ours that died, and whose entries others have claimed since, are forgotten after an hour.
for i, key in ipairs(KEYS) do
  for _, flat in ipairs(there[i] and redis.call('XINFO', 'CONSUMERS', key, ARGV[1]) or {}) do
    local consumer = info(flat)
    if consumer['pending'] == 0 and consumer['idle'] > 3600000 and string.sub(consumer['name'], 1, 8) == 'simlink-' then
      redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], consumer['name'])
    end
  end
end
local moves = ARGV[2] ~= ''
if moves and ARGV[4] ~= '1' and next(there) then return -1 end
local made = 0
for i, key in ipairs(KEYS) do
  if there[i] and moves then
    redis.call('XGROUP', 'DESTROY', key, ARGV[1])
    there[i] = nil
  end
  if not there[i] then
    local start = moves and ARGV[2] or ARGV[3]
    redis.call('XGROUP', 'CREATE', key, ARGV[1], start, 'MKSTREAM')
    local stream = info(redis.call('XINFO', 'STREAM', key))
    local added, length = stream['entries-added'], stream['length']
    -- How many entries lie before the group's position, so that a gap can be counted later.
    if added and start == '$' then
      redis.call('XGROUP', 'SETID', key, ARGV[1], '$', 'ENTRIESREAD', added)
    elseif added and start == '0' then
      redis.call('XGROUP', 'SETID', key, ARGV[1], '0', 'ENTRIESREAD', added - length)
    end
    made = 1
  end
end
return made
"""
)

POSITION = Script(
    _INFO
    + """
-- For a reader without a group. KEYS: the streams. Answers for each: the last ID ever, entries ever, entries now, the
-- first ID now.
local out = {}
for i, key in ipairs(KEYS) do
  local stream = redis.pcall('XINFO', 'STREAM', key)
  if stream.err then
    if string.sub(stream.err, 1, 9) == 'WRONGTYPE' then return stream end
    out[i] = {'0-0', 0, 0, '0-0'}
  else
    stream = info(stream)
    local edge = stream['first-entry']
    out[i] = {stream['last-generated-id'], stream['entries-added'] or 0, stream['length'], edge and edge[1] or '0-0'}
  end
end
return out
"""
)

GAPS = Script(
    _INFO
    + """
-- Whether unread entries were trimmed away; if so the group is moved behind them, so that they are counted once.
-- KEYS: one stream. ARGV: group. Answers how many.
local stream = info(redis.call('XINFO', 'STREAM', KEYS[1]))
local edge = stream['first-entry']
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = info(flat)
  local read = group['entries-read']
  if group['name'] == ARGV[1] and read and less(group['last-delivered-id'], stream['last-generated-id']) then
    local before = stream['entries-added'] - stream['length']
    if before <= read or (edge and not less(group['last-delivered-id'], edge[1])) then return 0 end
    local to = stream['last-generated-id']
    if edge then
      local ms, seq = string.match(edge[1], '^(%d+)-(%d+)$')
      if seq == '0' then
        to = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
      else
        to = ms .. '-' .. string.format('%.0f', tonumber(seq) - 1)
      end
    end
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], to, 'ENTRIESREAD', before)
    return before - read
  end
end
return 0
"""
)

CLAIM = Script("""
-- Take over what a silent receiver held. KEYS: one stream. ARGV: group, consumer, milliseconds idle, cursor, count.
-- Answers the next cursor, the entries, how often each was handed out, and how many are trimmed away.
local found = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local counts = {}
for i, entry in ipairs(found[2]) do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
  counts[i] = pending[1] and pending[1][4] or 2
end
return {found[1], found[2], counts, found[3] and #found[3] or 0}
""")

RENEW = Script("""
-- Keep what we hold, if it is still ours. KEYS: one stream. ARGV: group, consumer, IDs in order. Answers those that are
-- not ours any more.
local mine = {}
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[#ARGV], 1000000, ARGV[2])) do
  mine[pending[1]] = true
end
local lost, claim = {}, nil
local function flush()
  if claim and #claim > 5 then
    claim[#claim + 1] = 'JUSTID'
    redis.call(unpack(claim))
  end
  claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
end
flush()
for i = 3, #ARGV do
  if mine[ARGV[i]] then claim[#claim + 1] = ARGV[i] else lost[#lost + 1] = ARGV[i] end
  if #claim > 1000 then flush() end
end
flush()
return lost
""")

_GIVE_BACK = """
-- What a consumer holds goes to one that nobody is, idle for so long that the next claim takes it.
local function give_back(key, group, consumer, heir, idle)
  local left
  repeat
    local before = left
    local pending = redis.call('XPENDING', key, group, '-', '+', 1000, consumer)
    left = #pending
    if left > 0 then
      local claim = {'XCLAIM', key, group, heir, '0'}
      for _, entry in ipairs(pending) do claim[#claim + 1] = entry[1] end
      claim[#claim + 1] = 'IDLE'
      claim[#claim + 1] = idle
      claim[#claim + 1] = 'JUSTID'
      redis.call(unpack(claim))
      if before == left and pending[1][1] == first then return end
      first = pending[1][1]
    end
  until left == 0
  redis.call('XGROUP', 'DELCONSUMER', key, group, consumer)
end
"""

GIVE_BACK = Script(
    "local first\n"
    + _GIVE_BACK
    + """
-- KEYS: the streams. ARGV: group, consumer, heir, milliseconds idle.
for _, key in ipairs(KEYS) do
  local groups = redis.pcall('XPENDING', key, ARGV[1])
  if not groups.err then
    first = nil
    give_back(key, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
  end
end
return 1
"""
)

TRIM = Script(
    _INFO
    + """
-- Drop what every group has done with: below the oldest entry that is pending or unread in any. KEYS: the streams.
-- Answers how many entries went.
local function after(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if #seq > 15 then return id end
  return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end
local gone = 0
for _, key in ipairs(KEYS) do
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if groups.err and string.sub(groups.err, 1, 9) == 'WRONGTYPE' then return groups end
  local oldest
  for _, flat in ipairs(groups.err and {} or groups) do
    local group = info(flat)
    local from = after(group['last-delivered-id'])
    if group['pending'] > 0 then
      local pending = redis.call('XPENDING', key, group['name'])
      if less(pending[2], from) then from = pending[2] end
    end
    if not oldest or less(from, oldest) then oldest = from end
  end
  if oldest then gone = gone + redis.call('XTRIM', key, 'MINID', '=', oldest) end
end
return gone
"""
)

PURGE = Script(
    _INFO
    + """
-- Drop what nobody has in hand, for every group. KEYS: the streams. ARGV: the heir of what was given back. Answers how
-- many entries went.
local gone = 0
for _, key in ipairs(KEYS) do
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if not groups.err then
    local kept = {}
    local stream = info(redis.call('XINFO', 'STREAM', key))
    for _, flat in ipairs(groups) do
      local name = info(flat)['name']
      if stream['entries-added'] then
        redis.call('XGROUP', 'SETID', key, name, '$', 'ENTRIESREAD', stream['entries-added'])
      else
        redis.call('XGROUP', 'SETID', key, name, '$')
      end
      redis.call('XGROUP', 'DELCONSUMER', key, name, ARGV[1])
      for _, pending in ipairs(redis.call('XPENDING', key, name, '-', '+', 1000000)) do kept[pending[1]] = true end
    end
    if not next(kept) then
      gone = gone + redis.call('XTRIM', key, 'MAXLEN', '=', 0)
    else
      local from = '-'
      repeat
        local page = redis.call('XRANGE', key, from, '+', 'COUNT', 1000)
        for _, entry in ipairs(page) do
          if not kept[entry[1]] then gone = gone + redis.call('XDEL', key, entry[1]) end
          from = '(' .. entry[1]
        end
      until #page == 0
    end
  elseif string.sub(groups.err, 1, 9) == 'WRONGTYPE' then
    return groups
  end
end
return gone
"""
)

SHARE = Script("""
-- Who reads which stream, where one receiver at a time may. KEYS: the members (by when they were last here), a lease
-- for each stream. ARGV: consumer, milliseconds that a lease lasts, 1 where one receiver has all. Answers how many
-- leases are this one's fair share, then for each stream whether it holds it: 0, 1, or 2 since just now.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local life = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - life)
redis.call('PEXPIRE', KEYS[1], 2 * life)
local streams = #KEYS - 1
local alone = ARGV[3] == '1'
local share = alone and streams or math.ceil(streams / redis.call('ZCARD', KEYS[1]))
local out, held = {share}, 0
for i = 1, streams do
  local owner = redis.call('GET', KEYS[i + 1])
  out[i + 1] = owner == ARGV[1] and 1 or owner and 0 or -1
  if out[i + 1] == 1 then
    redis.call('PEXPIRE', KEYS[i + 1], life)
    held = held + 1
  end
end
for i = 1, streams do
  if out[i + 1] == -1 then
    out[i + 1] = 0
    if held < share and (not alone or i == 1 or out[2] > 0) then
      redis.call('SET', KEYS[i + 1], ARGV[1], 'PX', life)
      out[i + 1] = 2
      held = held + 1
    end
  end
end
return out
""")

RELEASE = Script(
    "local first\n"
    + _GIVE_BACK
    + """
-- Let a stream go. KEYS: its lease, the stream. ARGV: group, consumer, heir, milliseconds idle. Answers whether it was
-- ours.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
give_back(KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
redis.call('DEL', KEYS[1])
return 1
"""
)

LEASED_FETCH = Script("""
-- Read new entries of streams whose lease is ours at this moment. KEYS: pairs of lease and stream. ARGV: group,
-- consumer, count. Answers for each stream its entries and, where there are none, the last ID; 0 where the lease is
-- another's.
local out = {}
for i = 1, #KEYS, 2 do
  local at = #out + 1
  out[at] = 0
  if redis.call('GET', KEYS[i]) == ARGV[2] then
    local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[i + 1], '>')
    if found then
      out[at] = {found[1][2], ''}
    else
      local flat = redis.call('XINFO', 'STREAM', KEYS[i + 1])
      for j = 1, #flat, 2 do
        if flat[j] == 'last-generated-id' then out[at] = {{}, flat[j + 1]} end
      end
    end
  end
end
return out
""")
