/* SPDX-License-Identifier: MIT
 *
 * Standard input and output as a byte stream on the loop, whatever they are: pipes, sockets,
 * terminals, files, /dev/null. What can be polled is read and written without blocking; O_NONBLOCK
 * stays ours where the system lets us open the descriptor anew, else it is put back at the end.
 * Files are always ready and are read a piece per turn.
 * Owns its own descriptors; borrows those it was given. Limits: the output buffer holds 1 MiB. The
 * worker's thread.
 */
#ifndef CV_NET_DUPLEX_H
#define CV_NET_DUPLEX_H

#include "base/slice.h"
#include "base/status.h"

#include <stdbool.h>

struct cv_duplex;
struct cv_worker;

/* All come from the loop, never from inside a call, and not after cv_duplex_free. */
struct cv_duplex_ops {
    void (*on_data)(void *arg, struct cv_slice data); /* all of it counts as taken */
    void (*on_eof)(void *arg);                        /* nothing more comes: once */
    void (*on_writable)(void *arg); /* the output has fallen to its low mark, after congestion */
    /* All was written after cv_duplex_finish, or `status` says why nothing more can be written or
     * read: once. */
    void (*on_ended)(void *arg, struct cv_status status);
};

/* Reads from `fd_in` and writes to `fd_out`; they may be the same. Reading begins paused.
 * CV_IO, CV_NO_MEMORY. */
struct cv_status cv_duplex_new(struct cv_worker *worker, int fd_in, int fd_out,
                               const struct cv_duplex_ops *ops, void *arg,
                               struct cv_duplex **duplex, struct cv_error *error);

void cv_duplex_pause(struct cv_duplex *duplex);
void cv_duplex_resume(struct cv_duplex *duplex);

/* Appends to the output, which is written as the other side takes it. CV_NO_RESOURCES over the cap,
 * CV_NO_MEMORY: nothing was appended. */
struct cv_status cv_duplex_write(struct cv_duplex *duplex, struct cv_slice data);
bool cv_duplex_is_congested(const struct cv_duplex *duplex);

/* No more is written: on_ended follows once everything has left. */
void cv_duplex_finish(struct cv_duplex *duplex);

/* Unsent bytes are dropped. Takes NULL, nulls; fine inside a callback, which must return at once.
 */
void cv_duplex_free(struct cv_duplex **duplex);

#endif
