/*
 * signing.h
 *		The ledger's keys, opened and cached in this process.
 */
#ifndef SESSAUTH_LEDGER_SIGNING_H
#define SESSAUTH_LEDGER_SIGNING_H

#include "fmgr.h"

#include "core/digest.h"
#include "core/key.h"

/* These run inside a frame, or after signing_prepare, and see keys as of the newest commit. What they return lives until the next call of any of them. */

/* The key that signs new tokens. Throws ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when there is none, ERRCODE_CONFIG_FILE_ERROR when the master key does not open it. */
extern const SaKey *signing_active(const char **kid);

/* An SaKeyLookup over all keys of the ledger, revoked ones too; call signing_refresh first. */
extern const SaKey *signing_lookup(void *arg, const char *kid, size_t kidlen);
extern void signing_refresh(void);
extern bool signing_is_revoked(const char *kid);

/*
 * Before signing_lookup, signing_is_revoked or signing_refresh_key without a frame: opens one
 * when there is something to read. Checks the library as ledger_begin does.
 */
extern void signing_prepare(FunctionCallInfo fcinfo, bool refresh_key);

/* Grows whenever a key may have changed. */
extern uint64 signing_changes(void);

/* The key under which refresh tokens are authenticated; NULL when the ledger has none yet. */
extern const unsigned char *signing_refresh_key(void);

#endif							/* SESSAUTH_LEDGER_SIGNING_H */
