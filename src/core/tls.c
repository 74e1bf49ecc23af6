/*
 * tls.c
 *		The client's side of a TLS connection over memory. See tls.h.
 *
 * OpenSSL's queue of errors belongs to the thread, which may have other users: it is
 * emptied before each call, because what lies in it would be taken for this call's, and after it, for their sake.
 */
#include "tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct SaTls
{
	SSL		   *ssl;
	BIO		   *in;				/* both belong to ssl */
	BIO		   *out;
	size_t		sent;			/* bytes at the head of out that are gone */
	bool		secured;		/* the handshake is over */
	char		error[160];
};

static const char *configure(SSL_CTX *ctx, const SaTlsOptions *options);
static bool is_file(const char *path, bool is_secret);
static int	no_passphrase(char *out, int size, int writing, void *arg);
static bool expect_host(SSL *ssl, const char *host);
static SaTlsStep judge(SaTls *tls, int result);
static const char *reason(void);

SaTls *
sa_tls_new(const SaTlsOptions *options, char *error, size_t size)
{
	SaTls	   *tls = calloc(1, sizeof(*tls));
	SSL_CTX    *ctx;
	const char *why = "out of memory";

	ERR_clear_error();
	ctx = SSL_CTX_new(TLS_client_method());
	if (tls && ctx && (why = configure(ctx, options)) == NULL)
	{
		why = "out of memory";
		tls->ssl = SSL_new(ctx);
		tls->in = BIO_new(BIO_s_mem());
		tls->out = BIO_new(BIO_s_mem());
		if (tls->ssl && tls->in && tls->out)
		{
			SSL_set_bio(tls->ssl, tls->in, tls->out);
			SSL_set_connect_state(tls->ssl);
			why = expect_host(tls->ssl, options->host) ? NULL : "the host is neither a name nor an address";
		}
		else
		{
			BIO_free(tls->in);
			BIO_free(tls->out);
		}
	}
	SSL_CTX_free(ctx);			/* the connection holds it */
	ERR_clear_error();
	if (why == NULL)
		return tls;
	snprintf(error, size, "%s", why);
	sa_tls_free(tls);
	return NULL;
}

void
sa_tls_free(SaTls *tls)
{
	if (tls == NULL)
		return;
	SSL_free(tls->ssl);
	ERR_clear_error();
	free(tls);
}

static const char *
configure(SSL_CTX *ctx, const SaTlsOptions *options)
{
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
		return "TLS 1.2 is not available";

	if (options->ca_file[0] == '\0')
	{
		if (SSL_CTX_set_default_verify_paths(ctx) != 1)
			return "the system's CA certificates cannot be read";
	}
	else if (!is_file(options->ca_file, false) || SSL_CTX_load_verify_locations(ctx, options->ca_file, NULL) != 1)
		return "the file with the CA certificates cannot be read";

	if (options->cert_file[0] == '\0')
		return NULL;
	if (!is_file(options->cert_file, false) || SSL_CTX_use_certificate_chain_file(ctx, options->cert_file) != 1)
		return "the file with the client certificate cannot be read";
	if (!is_file(options->key_file, true) || SSL_CTX_use_PrivateKey_file(ctx, options->key_file, SSL_FILETYPE_PEM) != 1)
		return "the file with the client's private key cannot be read, is readable by others, or does not fit the certificate";
	return NULL;
}

/* Opening anything else, a pipe for one, could block. */
static bool
is_file(const char *path, bool is_secret)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && !(is_secret && (st.st_mode & (S_IRWXO | S_IWGRP)));
}

/* OpenSSL would ask at the terminal. */
static int
no_passphrase(char *out, int size, int writing, void *arg)
{
	(void) out;
	(void) size;
	(void) writing;
	(void) arg;
	return -1;
}

static bool
expect_host(SSL *ssl, const char *host)
{
	if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1)
		return true;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

bool
sa_tls_feed(SaTls *tls, const void *bytes, size_t len)
{
	return BIO_write(tls->in, bytes, (int) len) == (int) len;
}

SaTlsStep
sa_tls_handshake(SaTls *tls)
{
	SaTlsStep	step;

	ERR_clear_error();
	step = judge(tls, SSL_do_handshake(tls->ssl));
	tls->secured = step == SA_TLS_DONE;
	return step;
}

SaTlsStep
sa_tls_read(SaTls *tls, void *out, size_t size, size_t *len)
{
	*len = 0;
	ERR_clear_error();
	return judge(tls, SSL_read_ex(tls->ssl, out, size, len));
}

bool
sa_tls_write(SaTls *tls, const void *bytes, size_t len)
{
	size_t		written;

	ERR_clear_error();
	return judge(tls, SSL_write_ex(tls->ssl, bytes, len, &written)) == SA_TLS_DONE;
}

static SaTlsStep
judge(SaTls *tls, int result)
{
	long		verified;

	switch (result > 0 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, result))
	{
		case SSL_ERROR_NONE:
			ERR_clear_error();
			return SA_TLS_DONE;
		case SSL_ERROR_WANT_READ:
		case SSL_ERROR_WANT_WRITE:
			ERR_clear_error();
			return SA_TLS_WAIT;
		case SSL_ERROR_ZERO_RETURN:
			snprintf(tls->error, sizeof(tls->error), "the server closed the connection");
			break;
		default:
			verified = SSL_get_verify_result(tls->ssl);
			if (!tls->secured && verified != X509_V_OK)
				snprintf(tls->error, sizeof(tls->error), "the server's certificate was refused: %s",
						 X509_verify_cert_error_string(verified));
			else
				snprintf(tls->error, sizeof(tls->error), "TLS failed: %s", reason());
			break;
	}
	ERR_clear_error();
	return SA_TLS_FAILED;
}

static const char *
reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text ? text : "protocol error";
}

size_t
sa_tls_output(SaTls *tls, const char **bytes)
{
	char	   *start;
	long		len = BIO_get_mem_data(tls->out, &start);

	*bytes = start + tls->sent;
	return (size_t) len - tls->sent;
}

/* The memory is given back when all is gone: taking it bit by bit would move the rest each time. */
void
sa_tls_sent(SaTls *tls, size_t len)
{
	const char *rest;

	tls->sent += len;
	if (sa_tls_output(tls, &rest) == 0)
	{
		(void) BIO_reset(tls->out);
		tls->sent = 0;
	}
}

const char *
sa_tls_error(const SaTls *tls)
{
	return tls->error;
}
