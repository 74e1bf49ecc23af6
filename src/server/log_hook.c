/*
 * log_hook.c
 *		Keeps tokens out of the server's log.
 *
 * Runs in every process, also while an error is being reported inside an
 * error: it reads no catalog, takes no lock, throws nothing, and needs memory only for a statement
 * that has a token written into it. The texts of an ErrorData are its own copies, so they are changed in place;
 * a client to which the same report goes sees it redacted, too.
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "core/redact.h"
#include "server/log_hook.h"

#define STATEMENT_LABEL "Statement, without its tokens: "

static emit_log_hook_type previous = NULL;

static void redact_report(ErrorData *report);
static void redact_text(char *text);
static void redact_statement(ErrorData *report);
static bool statement_is_logged(const ErrorData *report);

void
log_hook_install(void)
{
	previous = emit_log_hook;
	emit_log_hook = redact_report;
}

bool
log_hook_is_first(void)
{
	return emit_log_hook == redact_report;
}

static void
redact_report(ErrorData *report)
{
	redact_text(report->message);
	redact_text(report->detail);
	redact_text(report->detail_log);
	redact_text(report->hint);
	redact_text(report->context);
	redact_text(report->internalquery);
	redact_statement(report);
	if (previous)
		previous(report);
}

static void
redact_text(char *text)
{
	size_t		len = text ? strlen(text) : 0;
	size_t		left;

	if (len == 0 || (left = sa_redact(text, len)) == len)
		return;
	text[left] = '\0';
}

/*
 * The server adds the statement after this hook, from debug_query_string, which
 * is not ours to change: others read it later. So a statement with a token is kept back, and a redacted copy
 * goes where only the log sees it.
 */
static void
redact_statement(ErrorData *report)
{
	const char *statement = debug_query_string;
	const char *detail = report->detail_log ? report->detail_log : report->detail ? report->detail : "";
	size_t		len;
	size_t		size;
	char	   *both;
	char	   *copy;

	if (statement == NULL || report->hide_stmt || !statement_is_logged(report))
		return;
	len = strlen(statement);
	if (!sa_has_token(statement, len))
		return;

	report->hide_stmt = true;
	size = strlen(detail) + 1 + strlen(STATEMENT_LABEL) + len + 1;
	both = MemoryContextAllocExtended(report->assoc_context ? report->assoc_context : ErrorContext, size,
									  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (both == NULL)
		return;
	snprintf(both, size, "%s%s%s", detail, detail[0] != '\0' ? "\n" : "", STATEMENT_LABEL);
	copy = both + strlen(both);
	memcpy(copy, statement, len);
	copy[sa_redact(copy, len)] = '\0';
	if (report->detail_log)
		pfree(report->detail_log);
	report->detail_log = both;
}

/* As the server decides it. Messages of level LOG rank between ERROR and FATAL there. */
static bool
statement_is_logged(const ErrorData *report)
{
	if (report->elevel == LOG || report->elevel == LOG_SERVER_ONLY)
		return log_min_error_statement == LOG || log_min_error_statement <= ERROR;
	if (report->elevel == WARNING_CLIENT_ONLY)
		return false;
	if (log_min_error_statement == LOG)
		return report->elevel >= FATAL;
	return report->elevel >= log_min_error_statement;
}
