/*
 * extension.h
 *		The extension as the catalog of this database has it.
 */
#ifndef SESSAUTH_SERVER_EXTENSION_H
#define SESSAUTH_SERVER_EXTENSION_H

#define EXTENSION_VERSION_SIZE 32

typedef struct Extension
{
	Oid			oid;
	Oid			owner;
	char		version[EXTENSION_VERSION_SIZE];	/* of its SQL */
} Extension;

/* Reads the newest committed state; false when this database has no such extension. */
extern bool extension_find(Extension *extension);

/* The SQL is of the version that this library was built for. */
extern bool extension_matches(const Extension *extension);

/* What mends a mismatch, for errhint. */
extern const char *extension_hint(const Extension *extension);

/*
 * Throws ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE unless library and SQL are of one version. Looks once, and again
 * after anybody's extension_changed(); call it after taking a lock, so that such news has arrived.
 */
extern void extension_require_match(void);

/* Tells every process, this one too, to look again; takes effect for others when the transaction commits. */
extern void extension_changed(void);

#endif							/* SESSAUTH_SERVER_EXTENSION_H */
