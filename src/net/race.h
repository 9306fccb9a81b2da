/* SPDX-License-Identifier: MIT
 *
 * Racing TCP connects to several addresses of one host (Happy Eyeballs, RFC 8305 §5): one after the
 * other, the next one as soon as the last has failed or a stagger has passed; the first to connect
 * wins. Part of dialling; a field of cv_dial. The worker's thread.
 */
#ifndef CV_NET_RACE_H
#define CV_NET_RACE_H

#include "net/addr.h"
#include "net/worker.h"

enum { CV_RACE_ADDRS_MAX = 16 };

struct cv_race;

struct race_lane {
    struct cv_race *race;
    struct uv_poll_s *poll; /* NULL when not under way */
    int fd;
};

struct cv_race {
    struct cv_worker *worker;
    struct cv_addr addrs[CV_RACE_ADDRS_MAX]; /* filled by the owner, best first */
    size_t count;
    size_t first_count; /* behind these the same again, on time only; 0: there is one round */
    uint64_t stagger_ms;
    size_t next; /* first address not tried */
    struct race_lane lanes[CV_RACE_ADDRS_MAX];
    struct cv_timer timer;
    int sys_errno;         /* the most telling failure so far */
    struct cv_addr failed; /* and its address */
    /* fd >= 0: connected, the callee's. -1: all failed, see sys_errno. The race is over. */
    void (*on_done)(void *arg, int fd);
    void *arg;
};

/* Adds an address; ignored over the maximum. */
void cv_race_add(struct cv_race *race, const struct cv_addr *addr);

/* Has all addresses tried `rounds` times, as far as they fit: a SYN that was lost is sent again by
 * the kernel after a second only (RFC 6298 §2.1). After cv_race_interleave. */
void cv_race_repeat(struct cv_race *race, unsigned rounds);

/* Reorders so that families alternate, beginning with that of the first address (RFC 8305 §4). */
void cv_race_interleave(struct cv_race *race);

/* worker, addrs, count, stagger_ms, on_done, arg are set. May call on_done before it returns. */
void cv_race_start(struct cv_race *race);

/* Ends every attempt; no on_done. Fine at any time on a zeroed or finished race. */
void cv_race_stop(struct cv_race *race);

#endif
