/* SPDX-License-Identifier: MIT
 *
 * Connecting to host:port: name → addresses, raced (Happy Eyeballs, RFC 8305) → CONNECT through a
 * proxy (RFC 9110 §9.3.6) → TLS. Gives an open connection or says at which stage it failed.
 * Owns everything under way; copies the strings of its options. Limits: 16 addresses are tried, the
 * proxy's answer has at most 8 KiB. Its worker's thread.
 */
#ifndef CV_NET_DIAL_H
#define CV_NET_DIAL_H

#include "net/addr.h"
#include "net/conn.h"
#include "net/proxy.h"
#include "net/tls.h"
#include "net/worker.h"

struct cv_dial;

enum cv_dial_stage { CV_DIAL_DNS, CV_DIAL_TCP, CV_DIAL_PROXY, CV_DIAL_TLS };

struct cv_dial_options {
    const char *host; /* name or IP literal without brackets */
    uint16_t port;
    struct cv_tls_client *tls;    /* NULL: plain; borrowed until done */
    const struct cv_proxy *proxy; /* NULL or host "": directly */
    uint64_t timeout_ms;          /* for all stages together; 0: 30 s */
    uint64_t stagger_ms;          /* between attempts; 0: 250 ms (RFC 8305 §5) */
    unsigned rounds;              /* how often each address is tried, a stagger apart; 0: once */
    /* Where the host (or the proxy) was before: tried when its name is not resolved soon, as on a
     * network that is just coming back. NULL: not known. */
    const struct cv_addr *hint;
    struct cv_tls_facts *tls_facts; /* filled as far as TLS comes; NULL: not wanted. Borrowed until
                                       the connection is closed */
};

struct cv_dial_result {
    struct cv_status status;
    const struct cv_error *error; /* detail starts with the stage: "tcp: …"; never NULL */
    enum cv_dial_stage stage;     /* reached when it failed */
    struct cv_conn *conn; /* open, the callee's: cv_conn_set_ops before returning; or NULL */
};

/* Called once, never from inside cv_dial_start; the dial is gone when it is entered. Failures:
 * CV_RESOLVE, CV_CONN_REFUSED, CV_CONN_TIMEOUT, CV_NETWORK_UNREACHABLE, CV_CONN_RESET, CV_PROXY
 * (with the proxy's HTTP status in the detail), CV_TLS, CV_TLS_CERTIFICATE, CV_SHUTTING_DOWN
 * (worker ends), CV_NO_MEMORY, CV_NO_RESOURCES. */
typedef void cv_dial_on_done(void *arg, const struct cv_dial_result *result);

/* CV_INVALID (host too long or empty, port 0), CV_NO_MEMORY; on_done is not called then. */
struct cv_status cv_dial_start(struct cv_worker *worker, const struct cv_dial_options *options,
                               cv_dial_on_done *on_done, void *arg, struct cv_dial **out,
                               struct cv_error *error);

/* Stops it; on_done is not called. *dial is NULL afterwards; NULL is fine. */
void cv_dial_cancel(struct cv_dial **dial);

const char *cv_dial_stage_name(enum cv_dial_stage stage); /* "dns", "tcp", "proxy", "tls" */

#endif
