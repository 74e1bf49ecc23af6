/*
 * keyring.h
 *		The master key, and the secrets sealed under it.
 *
 * Used by ledger and worker. Everything opened here stays in this process and
 * is wiped when it exits.
 */
#ifndef SESSAUTH_SERVER_KEYRING_H
#define SESSAUTH_SERVER_KEYRING_H

#include "core/digest.h"

/*
 * The master key. Throws ERRCODE_CONFIG_FILE_ERROR with a hint that shows how
 * to make one when it is not configured or not readable. The result points to
 * process memory; do not free or copy it.
 */
extern const unsigned char *keyring_master(void);

/*
 * Opens the secret "link" or "refresh". Needs SPI connected and a snapshot.
 * False when the row does not exist yet; throws when the master key is missing or wrong.
 */
extern bool keyring_open_secret(const char *name, unsigned char out[SA_KEY_LEN]);

/* Creates both secrets unless they exist. Needs SPI connected and the owner's rights. */
extern void keyring_ensure_secrets(void);

#endif							/* SESSAUTH_SERVER_KEYRING_H */
