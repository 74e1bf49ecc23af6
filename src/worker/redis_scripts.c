/*
 * redis_scripts.c
 *		The Lua that runs in Redis.
 *
 * Scripts take no decision by Redis's own clock: every time comes from the
 * ledger. Numbers that may pass 2^53 are compared as decimal strings, because Lua's are doubles.
 */
#include "postgres.h"

#include "worker/redis_scripts.h"

/*
 * The state that this writer left, or what differs (doc/protocol.md, section 5).
 * Entry fields are in fixed order: g at 2, n at 4, k at 6.
 */
#define LUA_CHECK \
	"local function check(owner, g, n, tail, low)\n" \
	"  local h = redis.call('HMGET', KEYS[1], 'owner', 'generation', 'n', 'tail', 'id')\n" \
	"  if not h[1] then return 'missing' end\n" \
	"  if h[1] ~= owner then return 'owner' end\n" \
	"  if h[2] ~= g then return 'generation' end\n" \
	"  if h[3] ~= n or h[4] ~= tail then return 'position' end\n" \
	"  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]\n" \
	"  if (h[5] or '') ~= (last and last[1] or '') then return 'stream' end\n" \
	"  if tonumber(low) <= tonumber(n) then\n" \
	"    local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]\n" \
	"    if not first then return 'trimmed' end\n" \
	"    local f = first[2]\n" \
	"    if f[2] == g and tonumber(f[4]) > tonumber(low) - (f[6] == 'beat' and 1 or 0) then return 'trimmed' end\n" \
	"  end\n" \
	"end\n"

#define LUA_LESS \
	"local function less(a, b) return #a < #b or (#a == #b and a < b) end\n" \
	"local function hash_only(key)\n" \
	"  local t = redis.call('TYPE', key)['ok']\n" \
	"  if t ~= 'hash' and t ~= 'none' then redis.call('DEL', key) end\n" \
	"end\n" \
	"local function put_epoch(key, epoch, m, at)\n" \
	"  hash_only(key)\n" \
	"  local now = redis.call('HGET', key, 'epoch')\n" \
	"  if not now or less(now, epoch) then redis.call('HSET', key, 'epoch', epoch, 'm', m) end\n" \
	"  if at ~= '' then\n" \
	"    if now then redis.call('EXPIREAT', key, at, 'GT') else redis.call('EXPIREAT', key, at) end\n" \
	"  end\n" \
	"end\n"

const char *const redis_scripts[SCRIPT_COUNT] = {
	/* KEYS mirror, stream; ARGV owner, g, n, timeline, schema. Forgets what the mirror was, except whose. */
	[SCRIPT_CLAIM] =
	"local owner = redis.call('HGET', KEYS[1], 'owner')\n"
	"if owner and owner ~= ARGV[1] then return 'owner' end\n"
	"local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]\n"
	"redis.call('DEL', KEYS[1])\n"
	"redis.call('HSET', KEYS[1], 'schema', ARGV[5], 'owner', ARGV[1], 'generation', ARGV[2], 'timeline', ARGV[4],\n"
	"  'n', ARGV[3], 'tail', '', 'id', last and last[1] or '')\n"
	"return 'OK'\n",

	/* KEYS mirror, stream; ARGV owner, g, n, tail, low, new n, new tail, then 24 per entry. */
	[SCRIPT_APPEND] =
	LUA_CHECK
	"local bad = check(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])\n"
	"if bad then return bad end\n"
	"local id\n"
	"for i = 8, #ARGV, 24 do id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, i, i + 23)) end\n"
	"redis.call('HSET', KEYS[1], 'n', ARGV[6], 'tail', ARGV[7], 'id', id)\n"
	"return 'OK'\n",

	/* KEYS mirror, stream, answers; ARGV owner, g, n, tail, low, trim, 14 of the beat, then node and answer by turns. */
	[SCRIPT_BEAT] =
	LUA_CHECK
	"local bad = check(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])\n"
	"if bad then return bad end\n"
	"local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 7, 20))\n"
	"redis.call('HSET', KEYS[1], 'id', id, 'low', ARGV[5])\n"
	"local cut\n"
	"for _, e in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[6])) do\n"
	"  cut = e[1]\n"
	"  local f = e[2]\n"
	"  if e[1] == id or (f[2] == ARGV[2] and f[6] ~= 'beat' and tonumber(f[4]) >= tonumber(ARGV[5])) then break end\n"
	"end\n"
	"redis.call('XTRIM', KEYS[2], 'MINID', cut)\n"
	"if #ARGV > 20 then redis.call('HSET', KEYS[3], unpack(ARGV, 21)) end\n"
	"return 'OK'\n",

	/* KEYS session, user epoch, tenant epoch; ARGV uid, epoch, tepoch, exp, state, v, m, user's epoch, m, tenant's epoch, m, expire at. */
	[SCRIPT_PUT_SESSION] =
	LUA_LESS
	"hash_only(KEYS[1])\n"
	"local v = redis.call('HGET', KEYS[1], 'v')\n"
	"if not v or less(v, ARGV[6]) then\n"
	"  redis.call('HSET', KEYS[1], 'uid', ARGV[1], 'epoch', ARGV[2], 'tepoch', ARGV[3], 'exp', ARGV[4],\n"
	"    'state', ARGV[5], 'v', ARGV[6], 'm', ARGV[7])\n"
	"  redis.call('EXPIREAT', KEYS[1], ARGV[12])\n"
	"end\n"
	"put_epoch(KEYS[2], ARGV[8], ARGV[9], ARGV[12])\n"
	"put_epoch(KEYS[3], ARGV[10], ARGV[11], '')\n"
	"return 'OK'\n",

	/* KEYS epoch; ARGV epoch, m, expire at (empty: never). */
	[SCRIPT_PUT_EPOCH] =
	LUA_LESS
	"put_epoch(KEYS[1], ARGV[1], ARGV[2], ARGV[3])\n"
	"return 'OK'\n",
};
