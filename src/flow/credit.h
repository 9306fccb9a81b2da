/* SPDX-License-Identifier: MIT
 *
 * How large a window has to be: of a stream, or of what is kept until it is acknowledged. A window
 * of which three quarters are used in less than two round trips holds its sender back (the rest
 * may be what is given back in one piece), and is doubled; one of which a second and eight round
 * trips do not use as much is halved. So its size follows rate
 * times round trip, whoever reads slowly keeps a small one, and what is not used for a while falls
 * back. (Linux sizes receive buffers alike, tcp_rcv_space_adjust; HTTP/2 servers do by the same
 * rule of two round trips.)
 *
 * Pure: it says what size is wanted, its owner sets what it gets. Time is monotonic, in
 * milliseconds, from the caller. Owns nothing; one thread.
 */
#ifndef CV_FLOW_CREDIT_H
#define CV_FLOW_CREDIT_H

#include <stddef.h>
#include <stdint.h>

struct cv_credit {
    size_t bytes, least, most; /* least <= bytes <= most */
    size_t used;               /* since then, of this measurement */
    uint64_t since_ms;         /* 0: none runs */
};

/* At `least` bytes. `most` under `least` counts as `least`: it never changes. */
void cv_credit_init(struct cv_credit *window, size_t least, size_t most);

/* `len` bytes have gone through it. `rtt_ms` is the shortest round trip that was seen, 0: unknown,
 * and nothing grows. Returns the size that it should have; cv_credit_set or not is the caller's. */
size_t cv_credit_use(struct cv_credit *window, size_t len, uint64_t now_ms, uint32_t rtt_ms);

/* It has this size from now on, within its bounds; a new measurement begins. */
void cv_credit_set(struct cv_credit *window, size_t bytes);

#endif
