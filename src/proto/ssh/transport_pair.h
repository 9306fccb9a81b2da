/* SPDX-License-Identifier: MIT
 *
 * For tests: a client and a server back to back through their buffers, in a time that the test
 * sets. Messages carry their number and bytes that follow from it, which the receiver checks. Uses
 * cmocka's assertions. The test owns the pair.
 */
#ifndef CV_SSH_TRANSPORT_PAIR_H
#define CV_SSH_TRANSPORT_PAIR_H

#include "base/test.h"
#include "proto/ssh/transport.h"

struct cv_ssh_side {
    struct cv_buf out;
    struct cv_ssh_transport *t;
    struct cv_status status; /* of the last next() */
    bool is_established;
    bool keeps_waiting; /* leave HOST_KEY unanswered */
    bool refuses_host;
    uint64_t sent, received; /* messages, each with its number in it */
    uint64_t received_bytes;
    uint32_t kex_done;
    uint32_t disconnect_reason;
    char fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
};

struct cv_ssh_pair {
    struct cv_ssh_host_key *key;
    struct cv_ssh_side client, server;
    size_t step; /* bytes fed at once, 0: all */
    uint64_t now_ms;
};

/* Starts both sides at 1,000 ms with a fresh host key; role and host key in the options are set
 * here. */
void cv_ssh_pair_start_with(struct cv_ssh_pair *pair, struct cv_ssh_transport_options client,
                            struct cv_ssh_transport_options server);
void cv_ssh_pair_start(struct cv_ssh_pair *pair);
void cv_ssh_pair_done(struct cv_ssh_pair *pair);

/* Sends the side's next message with `len` bytes behind its number. */
struct cv_status cv_ssh_side_send(struct cv_ssh_side *side, size_t len);

/* Takes packets until there is none; the last status stays in side->status. */
void cv_ssh_side_drain(struct cv_ssh_side *side, uint64_t now_ms);

/* Hands `len` bytes in, in a block of memory of their own, so that a sanitizer sees every byte read
 * too many, and drains. */
void cv_ssh_side_feed(struct cv_ssh_side *side, const void *data, size_t len, uint64_t now_ms);

/* Moves at most pair->step bytes over; false when nothing moved. */
bool cv_ssh_pair_carry(struct cv_ssh_pair *pair, struct cv_ssh_side *from, struct cv_ssh_side *to);

/* Until neither side has anything to say. */
void cv_ssh_pair_run(struct cv_ssh_pair *pair);
void cv_ssh_pair_establish(struct cv_ssh_pair *pair);

/* Moves `count` messages each way, of up to `len` bytes, and checks that all arrived. */
void cv_ssh_pair_exchange(struct cv_ssh_pair *pair, size_t count, size_t len);

#endif
