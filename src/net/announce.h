/* SPDX-License-Identifier: MIT
 *
 * The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2), receiving side: a load
 * balancer says in front of all other bytes whose connection it passes on. Only for peers that are
 * trusted to: anybody could write such a header.
 *
 * The header is looked at in the socket's buffer and taken out of it exactly, so that TLS begins
 * right behind it. At most CV_ANNOUNCE_MAX bytes, within a time. Its worker's thread.
 */
#ifndef CV_NET_ANNOUNCE_H
#define CV_NET_ANNOUNCE_H

#include "net/addr.h"
#include "net/worker.h"

/* Version 1 has at most 107 bytes; of version 2 what a balancer adds beside the addresses fits. */
#define CV_ANNOUNCE_MAX 1024

/* The header at the beginning of `bytes`. CV_OK: it has *len bytes, and *client is the address in
 * it, of length 0 where it names none (LOCAL, UNKNOWN: the balancer speaks for itself). CV_AGAIN:
 * at least *len bytes are needed to tell. CV_INVALID: it is none, or too long. */
struct cv_status cv_announce_parse(struct cv_slice bytes, struct cv_addr *client, size_t *len);

/* `client` is the address in the header, or the peer's own where that names none. On failure
 * (CV_INVALID, CV_CONN_TIMEOUT, CV_EOF, CV_CONN_RESET) fd is closed already and -1, and `client`
 * means nothing. */
typedef void cv_announce_on_done(void *arg, int fd, const struct cv_addr *client,
                                 struct cv_status status);

/* Waits for the header on `fd`, an accepted socket, which it takes, also on failure; on_done comes
 * once, never from inside this call, and not at all when the worker ends first. CV_NO_MEMORY,
 * CV_NO_RESOURCES. */
struct cv_status cv_announce_wait(struct cv_worker *worker, int fd, uint64_t timeout_ms,
                                  cv_announce_on_done *on_done, void *arg);

#endif
