/* SPDX-License-Identifier: MIT
 *
 * What a TLS connection looks like to a person: the peer's certificate, trusted or not. Private to
 * net/tls.c. The session's thread.
 */
#ifndef CV_NET_TLS_FACTS_H
#define CV_NET_TLS_FACTS_H

#include "net/tls.h"

struct ssl_st;

/* From here on the certificate goes into `facts` when it is verified, whatever the verdict, which
 * stays OpenSSL's. */
void cv_tls_facts_begin(struct cv_tls_facts *facts, struct ssl_st *ssl);

/* The handshake is done. */
void cv_tls_facts_end(struct cv_tls_facts *facts, const struct ssl_st *ssl);

#endif
