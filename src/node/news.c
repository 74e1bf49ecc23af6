/*
 * news.c
 *		What was revoked, told to those who wait for it: watches and the program.
 */
#include "node/node.h"

#include <stdio.h>
#include <string.h>

static SessauthKind kind_of(SaKind kind);
static bool can_be_watched(const SessauthDecision *decision);

void
news_revoked(SessauthNode *node, const SaEntry *entry)
{
	static const int what[] = {
		[SA_KIND_SESSION] = WATCH_SESSION,[SA_KIND_USER] = WATCH_USER,[SA_KIND_TENANT] = WATCH_TENANT,[SA_KIND_KEY] = WATCH_KEY
	};
	SessauthRevocation revocation = {.kind = kind_of(entry->kind), .n = entry->n, .epoch = entry->epoch, .at = entry->at};
	MemoryName	name;
	int64_t		epoch;

	/* A watch that comes now finds the revocation in the memory. */
	if (watches_count(&node->watches) > 0)
	{
		memory_entry_name(&node->memory, entry, &name, &epoch);
		watches_revoked(&node->watches, what[entry->kind], &name, epoch);
	}

	if (node->revoked == NULL)
		return;
	snprintf(revocation.generation, sizeof(revocation.generation), "%s", entry->g);
	snprintf(revocation.tid, sizeof(revocation.tid), "%s", entry->tid);
	snprintf(revocation.uid, sizeof(revocation.uid), "%s", entry->uid);
	snprintf(revocation.sid, sizeof(revocation.sid), "%s", entry->sid);
	snprintf(revocation.kid, sizeof(revocation.kid), "%s", entry->kid);
	node->revoked(node->revoked_arg, &revocation);
}

void
news_missed(SessauthNode *node, int64_t before, int64_t horizon)
{
	bool		joining = before == 0;	/* and nobody has heard anything from this node yet */
	SessauthRevocation revocation = {.kind = SESSAUTH_KIND_MISSED, .at = horizon / 1000};

	watches_missed(&node->watches, horizon / 1000000);
	watches_tell(&node->watches);
	if (node->revoked && !joining)
		node->revoked(node->revoked_arg, &revocation);
}

/* The ledger drops a key that was revoked, and a node that was away may never hear of it otherwise. */
void
news_keys(SessauthNode *node, const SaKeySet *before, const SaKeySet *now)
{
	char		text[sizeof(((SaEntry *) 0)->kid)];
	MemoryName	name;

	for (size_t i = 0; i < sa_keyset_count(before); i++)
	{
		size_t		len;
		const char *kid = sa_keyset_kid(before, i, &len);

		if (sa_keyset_find(now, kid, len) || len >= sizeof(text))	/* no token has a longer one */
			continue;
		memcpy(text, kid, len);
		text[len] = '\0';
		memory_name(&node->memory, SA_KIND_KEY, "", text, &name);
		watches_key_gone(&node->watches, &name);
	}
	watches_tell(&node->watches);
}

/*
 * Once more after the watch is there: what the memory held before that, nobody will say again. A revocation that it does not hold, because the
 * node was away or had no room for it, leaves a hole in what the node has covered. No lease extends over a hole: either
 * the revocation comes once more and is told, or the horizon moves beyond the token. Likewise the token's key: it is looked for again, because of
 * one that had left before that, nobody is told.
 *
 * The caller gets the watch at the end, so that its callback, which may run before that, cannot give it back under our hands.
 */
SessauthCode
sessauth_watch(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out,
			   void (*ended) (void *arg, SessauthEnd why), void *arg, SessauthWatch **watch)
{
	Claims		claims;
	SessauthWatch *added;

	*watch = NULL;
	(void) decide_token(node, token, len, arrived, out, &claims);
	if (!can_be_watched(out))
		return out->code;
	added = watch_add(&node->watches, &claims, ended, arg);
	if (added == NULL)
	{
		out->why = SESSAUTH_WHY_INTERNAL;
		return out->code = SESSAUTH_CANNOT_TELL;
	}
	added->node = node;
	(void) decide_token(node, token, len, arrived, out, &claims);
	if (can_be_watched(out))
		*watch = added;
	else
		watch_free(&node->watches, added);
	return out->code;
}

void
sessauth_unwatch(SessauthWatch *watch)
{
	if (watch)
		watch_free(&watch->node->watches, watch);
}

static SessauthKind
kind_of(SaKind kind)
{
	switch (kind)
	{
		case SA_KIND_SESSION:
			return SESSAUTH_KIND_SESSION;
		case SA_KIND_USER:
			return SESSAUTH_KIND_USER;
		case SA_KIND_TENANT:
			return SESSAUTH_KIND_TENANT;
		case SA_KIND_KEY:
			return SESSAUTH_KIND_KEY;
		case SA_KIND_BEAT:
			break;
	}
	return SESSAUTH_KIND_MISSED;
}

/* Is this a token whose end a node would hear of, now or when it knows everything again? */
static bool
can_be_watched(const SessauthDecision *decision)
{
	return decision->code == SESSAUTH_ACTIVE || (decision->code == SESSAUTH_CANNOT_TELL && decision->why == SESSAUTH_WHY_LEASE);
}
