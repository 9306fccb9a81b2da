/* SPDX-License-Identifier: MIT
 *
 * Name → addresses, by the system's resolver and in its order. Owns what is under way; the
 * addresses of an answer are valid for the call. Limits: CV_RESOLVE_MAX addresses, the rest is left
 * out. No time limit of its own. Its worker's thread.
 */
#ifndef CV_NET_RESOLVE_H
#define CV_NET_RESOLVE_H

#include "net/addr.h"
#include "net/worker.h"

enum { CV_RESOLVE_MAX = 16 };

struct cv_resolve;

struct cv_resolve_result {
    struct cv_status status;     /* CV_RESOLVE, CV_NO_MEMORY; CV_OK: at least one address */
    const char *reason;          /* the system's words; "" with CV_OK */
    const struct cv_addr *addrs; /* with the port that was asked for */
    size_t count;
};

/* Called once, never from inside cv_resolve_start; the struct is gone when it is entered. Not
 * called when the worker ends before. */
typedef void cv_resolve_on_done(void *arg, const struct cv_resolve_result *result);

/* What needs no resolver: an IP literal, or a name of this machine (RFC 6761 §6.3: never asked of a
 * name server; IPv4 first, since most local services have no other). Returns how many addresses
 * were written, 0 for a name that has to be resolved. */
size_t cv_resolve_known(const char *host, uint16_t port, struct cv_addr addrs[CV_RESOLVE_MAX]);

/* Asks for a name. CV_NO_MEMORY, CV_RESOLVE (the system takes no question; *reason says why);
 * on_done is not called then. */
struct cv_status cv_resolve_start(struct cv_worker *worker, const char *host, uint16_t port,
                                  cv_resolve_on_done *on_done, void *arg, struct cv_resolve **out,
                                  const char **reason);

/* on_done is not called; what the system has begun is waited for by the worker's end, and its
 * answer dropped. *resolve is NULL afterwards; NULL is fine. */
void cv_resolve_cancel(struct cv_resolve **resolve);

#endif
