/*
 * identity.h
 *		Who the current transaction acts for, once a token has proved it.
 */
#ifndef SESSAUTH_LEDGER_IDENTITY_H
#define SESSAUTH_LEDGER_IDENTITY_H

/* The bound user and tenant, or NULL when the transaction is not authenticated. Valid until the transaction ends. */
extern const char *identity_tenant(void);
extern const char *identity_user(void);

/* At the end of a (sub)transaction; called by the ledger's callbacks. */
extern void identity_forget(void);
extern void identity_subtransaction(bool aborted, unsigned int sub, unsigned int parent);

#endif							/* SESSAUTH_LEDGER_IDENTITY_H */
