/*
 * keyring.h
 *		The secrets that the ledger has sealed under the master key.
 *
 * Used by ledger and worker. Everything opened here stays in this process and
 * is wiped when it exits.
 */
#ifndef SESSAUTH_SERVER_KEYRING_H
#define SESSAUTH_SERVER_KEYRING_H

#include "core/digest.h"
#include "server/master_key.h"

#define KEYRING_HINT \
	"Point sessauth.master_key_file (or _command) at the key this ledger was made with. If that is lost, so are the signing keys: make a new ledger."

/*
 * Opens the secret "link" or "refresh". Needs SPI connected and a snapshot.
 * False when the row does not exist yet; throws when the master key is missing or wrong.
 */
extern bool keyring_open_secret(const char *name, unsigned char out[SA_KEY_LEN]);

/*
 * True when this server's master key is the one that sealed the ledger's secrets, or none is sealed yet; otherwise
 * the problem. Opens nothing. Needs SPI connected, a snapshot and the owner's rights.
 */
extern bool keyring_matches(MasterKeyProblem *problem);

/*
 * Writes the master key's id beside what it opens and nobody has named the key of: secrets of 0.1. Without a master key
 * they stay so. Needs SPI connected and the owner's rights.
 */
extern void keyring_name_keys(void);

/* Creates both secrets unless they exist. Needs SPI connected and the owner's rights. */
extern void keyring_ensure_secrets(void);

#endif							/* SESSAUTH_SERVER_KEYRING_H */
