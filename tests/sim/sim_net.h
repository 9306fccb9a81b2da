/* SPDX-License-Identifier: MIT
 *
 * Sockets and a loop that are not there: cv_conn_ and cv_worker_ as far as src/transport uses them,
 * in virtual time. A program that links this instead of src/net runs the transport unchanged, and
 * as fast as the processor goes.
 *
 * A path is a connection with two ends. Each way has a delay, a socket buffer, and an offset at
 * which it may be cut: bytes behind it never arrive, and each end learns of it when the schedule
 * says, or never. Owns its connections; those that nobody owns any more linger and die as real ones
 * do. Single-threaded.
 */
#ifndef CV_TESTS_SIM_NET_H
#define CV_TESTS_SIM_NET_H

#include "net/conn.h"
#include "net/worker.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_NEVER UINT64_MAX

enum sim_side { SIM_AGENT, SIM_RELAY, SIM_SIDES };

/* How a path dies. */
struct sim_cut {
    uint64_t offset;               /* bytes of `way` that still arrive; SIM_NEVER: it is not cut */
    uint8_t way;                   /* which end's bytes are counted, enum sim_side */
    bool is_one_way;               /* the other way goes on */
    bool is_eof[SIM_SIDES];        /* that end learns by an end of file, else by a reset */
    uint64_t learns_ms[SIM_SIDES]; /* so long after the cut; SIM_NEVER: that end is never told */
};

struct sim_path_options {
    uint32_t delay_ms;     /* each way */
    uint32_t segment;      /* the most bytes that arrive at once */
    uint32_t socket_bytes; /* what a sender's kernel takes before it is delivered */
    struct sim_cut cut;
};

struct sim_path;

struct cv_worker *sim_worker_new(void);
/* Ends every connection without a word. */
void sim_worker_free(struct cv_worker *worker);

/* When something happens next; SIM_NEVER: nothing will. */
uint64_t sim_worker_next(const struct cv_worker *worker);
/* Goes to `now_ms` and does what is due. */
void sim_worker_turn(struct cv_worker *worker, uint64_t now_ms);

/* A new path; ends[] are its connections. They die with a callback, or with the worker. */
struct sim_path *sim_path_new(struct cv_worker *worker, const struct sim_path_options *options,
                              struct cv_conn *ends[SIM_SIDES]);

/* The number of cuts that have happened on all paths so far. */
unsigned sim_worker_cuts(const struct cv_worker *worker);
/* The most bytes that came out of one end of any path. */
uint64_t sim_worker_bytes(const struct cv_worker *worker, enum sim_side from);

#endif
