/*
 * redis_scripts.c
 *		The Lua that runs in Redis. See redis_scripts.h.
 *
 * Scripts take no decision by Redis's own clock: every time comes from the
 * ledger. Numbers that may pass 2^53 are compared as decimal strings, because Lua's are doubles. A key of the
 * wrong type is somebody else's work, and is replaced. What has ended stays ended, whatever a set back ledger says of it.
 */
#include "postgres.h"

#include "worker/redis_scripts.h"

#define LUA_LESS \
	"local function less(a, b) return #a < #b or (#a == #b and a < b) end\n"

/* What sessauth:mirror says (n, tail, id from 3 on), or nil and what differs. */
#define LUA_FENCE \
	"local function fence()\n" \
	"  local h = redis.pcall('HMGET', KEYS[1], 'owner', 'generation', 'n', 'tail', 'id')\n" \
	"  if h.err or not h[1] or not h[3] or not h[4] or not h[5] then return nil, 'missing' end\n" \
	"  if h[1] ~= ARGV[1] then return nil, 'owner' end\n" \
	"  if h[2] ~= ARGV[2] then return nil, 'generation' end\n" \
	"  return h\n" \
	"end\n"

/*
 * The state that this writer left, or what differs (doc/protocol.md, section 5). The head may be a beat below
 * low, a revocation at or below it, or of another generation. Entry fields are in fixed order.
 */
#define LUA_CHECK \
	LUA_LESS \
	LUA_FENCE \
	"local function check()\n" \
	"  local h, bad = fence()\n" \
	"  if not h then return bad end\n" \
	"  local n, low = ARGV[3], ARGV[5]\n" \
	"  if h[3] ~= n or h[4] ~= ARGV[4] then return 'position' end\n" \
	"  local last = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)\n" \
	"  if last.err or h[5] ~= (last[1] and last[1][1] or '') then return 'stream' end\n" \
	"  if less(n, low) then return end\n" \
	"  local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]\n" \
	"  if not first then return 'trimmed' end\n" \
	"  local f = first[2]\n" \
	"  if f[1] ~= 'g' or f[3] ~= 'n' or f[5] ~= 'k' then return 'stream' end\n" \
	"  if f[2] ~= ARGV[2] then return end\n" \
	"  if f[6] == 'beat' then if not less(f[4], low) then return 'trimmed' end\n" \
	"  elseif less(low, f[4]) then return 'trimmed' end\n" \
	"end\n"

const char *const redis_scripts[SCRIPT_COUNT] = {
	[SCRIPT_CLAIM] =
	"local was = redis.pcall('HMGET', KEYS[1], 'owner', 'id')\n"
	"if not was.err and was[1] and was[1] ~= ARGV[1] and (was[1] ~= ARGV[10] or was[2] ~= ARGV[11]) then return 'owner' end\n"
	"local kind = redis.call('TYPE', KEYS[2]).ok\n"
	"if ARGV[7] == '1' or (kind ~= 'stream' and kind ~= 'none') then redis.call('DEL', KEYS[2]) end\n"
	"local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]\n"
	"redis.call('DEL', KEYS[1])\n"
	"redis.call('HSET', KEYS[1], 'schema', ARGV[5], 'owner', ARGV[1], 'generation', ARGV[2], 'timeline', ARGV[4],\n"
	"  'n', ARGV[3], 'tail', '', 'id', last and last[1] or '', 'low', ARGV[6], 'lease', ARGV[9])\n"
	"if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'synced', ARGV[8]) end\n"
	"return 'OK'\n",

	[SCRIPT_APPEND] =
	LUA_CHECK
	"local bad = check()\n"
	"if bad then return bad end\n"
	"local id, n, tail\n"
	"for i = 6, #ARGV, 24 do\n"
	"  id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, i, i + 23))\n"
	"  n, tail = ARGV[i + 3], ARGV[i + 23]\n"
	"end\n"
	"redis.call('HSET', KEYS[1], 'n', n, 'tail', tail, 'id', id)\n"
	"return 'OK ' .. id\n",

	[SCRIPT_PAGE] =
	LUA_CHECK
	"local bad = check()\n"
	"if bad then return bad end\n"
	"redis.call('DEL', KEYS[3])\n"
	"redis.call('HSET', KEYS[3], 'id', redis.call('HGET', KEYS[1], 'id'), 'm', ARGV[7], 'b', ARGV[8])\n"
	"redis.call('PEXPIREAT', KEYS[3], ARGV[6])\n"
	"return 'OK'\n",

	[SCRIPT_BEAT] =
	LUA_CHECK
	"local bad = check()\n"
	"if bad then return bad end\n"
	"local low, left = ARGV[5], tonumber(ARGV[6])\n"
	"local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 9, 22))\n"
	"redis.call('HSET', KEYS[1], 'id', id, 'low', low, 'lease', ARGV[7])\n"
	"if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'keys', ARGV[8]) end\n"
	"local function needed(f)\n"
	"  return f[1] == 'g' and f[2] == ARGV[2] and f[6] ~= 'beat' and not less(f[4], low)\n"
	"end\n"
	"while left > 0 do\n"
	"  local head = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 128)\n"
	"  local i = 1\n"
	"  while i < #head and i <= left and not needed(head[i][2]) do i = i + 1 end\n"
	"  if i > 1 then redis.call('XTRIM', KEYS[2], 'MINID', head[i][1]) end\n"
	"  if i < 128 then break end\n"
	"  left = left - i\n"
	"end\n"
	"local answers = tonumber(ARGV[23])\n"
	"if answers > 0 and redis.call('TYPE', KEYS[3]).ok ~= 'hash' then redis.call('DEL', KEYS[3]) end\n"
	"for i = 24, 23 + 2 * answers, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end\n"
	"for i = 24 + 2 * answers, #ARGV do\n"
	"  redis.pcall('HDEL', KEYS[3], ARGV[i])\n"
	"  redis.pcall('HDEL', KEYS[4], ARGV[i])\n"
	"end\n"
	"return 'OK ' .. id\n",

	[SCRIPT_DELETE] =
	LUA_FENCE
	"local h, bad = fence()\n"
	"if not h then return bad end\n"
	"for i = 2, #KEYS do\n"
	"  local m = redis.pcall('HGET', KEYS[i], 'm')\n"
	"  if type(m) == 'table' then m = 'type' end\n"
	"  if string.sub(m or '', 1, 43) == ARGV[i + 1] then redis.call('DEL', KEYS[i]) end\n"
	"end\n"
	"return 'OK'\n",

	[SCRIPT_EXPIRE] =
	LUA_FENCE
	"local h, bad = fence()\n"
	"if not h then return bad end\n"
	"local wrong = 0\n"
	"for i = 2, #KEYS do\n"
	"  local a = 4 * i - 5\n"
	"  local at = redis.call('PEXPIRETIME', KEYS[i])\n"
	"  if redis.pcall('HGET', KEYS[i], 'm') == ARGV[a] and (at < tonumber(ARGV[a + 1]) or at > tonumber(ARGV[a + 2])) then\n"
	"    if ARGV[a + 3] == '-1' then redis.call('PERSIST', KEYS[i]) else redis.call('PEXPIREAT', KEYS[i], ARGV[a + 3]) end\n"
	"    wrong = wrong + 1\n"
	"  end\n"
	"end\n"
	"return 'OK=0,' .. wrong\n",

	[SCRIPT_RELEASE] =
	"if redis.pcall('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('HDEL', KEYS[1], 'owner') end\n"
	"return 'OK'\n",

	[SCRIPT_KEYS] =
	LUA_LESS
	LUA_FENCE
	"local h, bad = fence()\n"
	"if not h then return bad end\n"
	"local function current(key, field)\n"
	"  local old = redis.pcall('HGET', key, field)\n"
	"  if type(old) == 'table' then redis.call('DEL', key) return false end\n"
	"  return old and string.find(old, '^%d+$') and old\n"
	"end\n"
	"local missing, stale = 0, 0\n"
	"local function count(old, new)\n"
	"  if not old then missing = missing + 1 elseif less(old, new) then stale = stale + 1 end\n"
	"end\n"
	"local function grow(key, epoch, m, expire)\n"
	"  local old = current(key, 'epoch')\n"
	"  count(old, epoch)\n"
	"  if not old or less(old, epoch) then redis.call('HSET', key, 'epoch', epoch, 'm', m) end\n"
	"  if expire and old then redis.call('PEXPIREAT', key, expire, 'GT')\n"
	"  elseif expire then redis.call('PEXPIREAT', key, expire) end\n"
	"end\n"
	"local k, a = 2, 4\n"
	"while a <= #ARGV do\n"
	"  if ARGV[a] == 's' then\n"
	"    local old = current(KEYS[k], 'v')\n"
	"    count(old, ARGV[a + 1])\n"
	"    local ended = old and ARGV[a + 6] ~= 'revoked' and redis.call('HGET', KEYS[k], 'state') == 'revoked'\n"
	"    if not old or (less(old, ARGV[a + 1]) and not ended) then\n"
	"      redis.call('HSET', KEYS[k], 'uid', ARGV[a + 2], 'epoch', ARGV[a + 3], 'tepoch', ARGV[a + 4],\n"
	"        'exp', ARGV[a + 5], 'state', ARGV[a + 6], 'v', ARGV[a + 1], 'm', ARGV[a + 7])\n"
	"      redis.call('PEXPIREAT', KEYS[k], ARGV[a + 8])\n"
	"    end\n"
	"    grow(KEYS[k + 1], ARGV[a + 9], ARGV[a + 10], ARGV[a + 8])\n"
	"    grow(KEYS[k + 2], ARGV[a + 11], ARGV[a + 12])\n"
	"    k, a = k + 3, a + 13\n"
	"  elseif ARGV[a] == 'u' then\n"
	"    grow(KEYS[k], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3])\n"
	"    k, a = k + 1, a + 4\n"
	"  else\n"
	"    grow(KEYS[k], ARGV[a + 1], ARGV[a + 2])\n"
	"    k, a = k + 1, a + 3\n"
	"  end\n"
	"end\n"
	"if ARGV[3] == 'count' then return 'OK=' .. missing .. ',' .. stale end\n"
	"if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'synced', ARGV[3]) end\n"
	"return 'OK'\n",
};
