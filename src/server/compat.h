/*
 * compat.h
 *		Differences between PostgreSQL 14 and 18, in one place.
 */
#ifndef SESSAUTH_SERVER_COMPAT_H
#define SESSAUTH_SERVER_COMPAT_H

#include "access/xlog.h"
#include "storage/latch.h"
#include "utils/resowner.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define compat_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* The timeline that this primary writes. */
static inline int
compat_timeline(void)
{
#if PG_VERSION_NUM >= 150000
	return (int) GetWALInsertionTimeLine();
#else
	return (int) ThisTimeLineID;
#endif
}

#endif							/* SESSAUTH_SERVER_COMPAT_H */
