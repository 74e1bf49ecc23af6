/*
 * ownership.c
 *		Whose mirror is it, and when may another ledger take it over?
 *
 * A mirror has one owner. Another ledger takes it over when the owner has released it (remove_mirror), or has not moved it for
 * longer than any lease that it may have given: until then a node may still say yes on the word of the other one. A
 * staging copy that somebody has activated by mistake is so kept off production's mirror, as long as production lives.
 *
 * Whether the owner is alive is told by the id of its last beat, seen at least twice, and measured by a clock that
 * nobody sets. A worker that starts anew begins to measure anew.
 */
#include "postgres.h"

#include "server/settings.h"
#include "worker/redis_scripts.h"
#include "worker/worker.h"

#define LOOK_MS	500				/* how often to look whether the owner has moved */
#define BLIND_MS 2000			/* two looks that are farther apart say nothing about the time between: Redis may have been away for both */

/* The owner is another ledger. True when it may be replaced; else the mirror has failed. */
bool
ownership_lapsed(Mirror *mirror)
{
	char		why[LINK_ERROR_SIZE];
	int64		lease = Max(setting_max_lease, Min(mirror->found_lease, LEASE_MS_MAX)) + setting_heartbeat_interval;
	Instant		now = clock_boot();

	if (strcmp(mirror->rival, mirror->found_owner) != 0 || strcmp(mirror->rival_id, mirror->found_id) != 0 ||
		instant_is_past(mirror->rival_looked, now, BLIND_MS))
	{
		mirror->rival_moved = mirror->rival[0] != '\0' && strcmp(mirror->rival, mirror->found_owner) == 0;
		strlcpy(mirror->rival, mirror->found_owner, sizeof(mirror->rival));
		strlcpy(mirror->rival_id, mirror->found_id, sizeof(mirror->rival_id));
		mirror->rival_since = now;
	}
	mirror->rival_looked = now;
	if (instant_is_past(mirror->rival_since, now, lease))
		return true;
	snprintf(why, sizeof(why), "the mirror belongs to another ledger%s; it is taken over when that one has released it, or was silent for %lld ms",
			 mirror->rival_moved ? ", which is alive" : "", (long long) lease);
	mirror_fail(mirror, why);
	mirror->retry_at = instant_after(now, LOOK_MS);
	return false;
}

/* The mirror is on the list no more. Queues the farewell; false when there is no way to say it, or it has been said. */
bool
ownership_release(Mirror *mirror, const char *ledger_id)
{
	char		key[SA_REDIS_KEY_SIZE];
	SaField		argv[2];

	if (mirror->phase == MIRROR_RELEASED)
		return mirror->exchange != EXCHANGE_NONE;
	if (mirror->phase != MIRROR_STREAMING || mirror->link.state == LINK_CLOSED)
		return false;
	if (mirror->exchange != EXCHANGE_NONE)
		return true;			/* in the next round */
	sa_name_mirror(mirror->where.prefix, key);
	argv[0] = SA_FIELD_STR(key);
	argv[1] = SA_FIELD_STR(ledger_id);
	mirror_script(mirror, SCRIPT_RELEASE, 1, 2, argv);
	mirror->phase = MIRROR_RELEASED;
	return true;
}
