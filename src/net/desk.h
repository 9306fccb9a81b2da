/* SPDX-License-Identifier: MIT
 *
 * A Unix socket at which other processes of the same user, and root, ask this one: a line is a
 * question, a line is its answer, as many as they like on one connection, answered in order. What
 * the lines mean is the owner's.
 *
 * The answering end lives on a worker; it owns the socket, its name in the file system and the
 * connections. Whoever is slow, silent or gone costs a connection for 30 s at most and never a
 * wait: at most 16 connections, then the one that has been silent the longest makes room; a
 * question has at most 4 KiB, an answer 512 KiB; nothing more is read from who does not take its
 * answers. Its worker's thread. The asking end is blocking, with a time limit.
 */
#ifndef CV_NET_DESK_H
#define CV_NET_DESK_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdint.h>

struct cv_desk;
struct cv_worker;

enum {
    CV_DESK_QUESTION_MAX = 4096,
    CV_DESK_ANSWER_MAX = 512 * 1024,
    CV_DESK_PEERS_MAX = 16,
    CV_DESK_IDLE_MS = 30000,
};

/* `question` has no line end; appends the answer without one, and without '\n' in it. Failure
 * closes the connection. Must not free the desk. */
typedef struct cv_status cv_desk_on_question(void *arg, struct cv_slice question,
                                             struct cv_buf *answer);

/* --- the answering end --- */

/* Listens at `path`, mode 0600, in the place of what a process that has ended left there. The path
 * may be longer than sun_path, its last part at most 90 bytes. CV_IO (another process answers
 * there), CV_CONFIG (the name is too long), CV_NO_MEMORY, CV_NO_RESOURCES; *desk is NULL then. */
struct cv_status cv_desk_new(struct cv_worker *worker, const char *path,
                             cv_desk_on_question *on_question, void *arg, struct cv_desk **desk,
                             struct cv_error *error);

/* Closes all of it and removes the name; the worker's end does that too. Takes NULL, nulls. */
void cv_desk_free(struct cv_desk **desk);

/* --- the asking end: any thread --- */

/* Connects without waiting. CV_NOT_FOUND when nobody listens there, CV_AGAIN when it is too busy to
 * take a connection, CV_IO. *fd is the caller's. */
struct cv_status cv_desk_connect(const char *path, int *fd, struct cv_error *error);

/* The two halves of cv_desk_ask, to ask several at once: `ms` is how long each may take. */
struct cv_status cv_desk_put(int fd, struct cv_slice question, unsigned ms, struct cv_error *error);
struct cv_status cv_desk_get(int fd, unsigned ms, struct cv_buf *answer, struct cv_error *error);

/* Asks one question (without '\n') and appends the answer. CV_CONN_TIMEOUT, CV_EOF (it has hung
 * up), CV_NO_RESOURCES (the answer does not fit), CV_NO_MEMORY, CV_IO: the connection is of no more
 * use. */
struct cv_status cv_desk_ask(int fd, struct cv_slice question, unsigned timeout_ms,
                             struct cv_buf *answer, struct cv_error *error);

#endif
