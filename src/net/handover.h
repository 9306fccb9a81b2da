/* SPDX-License-Identifier: MIT
 *
 * A Unix socket over which one process hands descriptors to its successor: records of a fixed size,
 * each with at most one descriptor (SCM_RIGHTS, unix(7)). Only processes of the same user get in
 * (SO_PEERCRED).
 *
 * The offering end (struct cv_handover) lives on a worker and serves one peer at a time, others
 * find their connection closed. It owns its sockets and the name in the file system; its worker's
 * thread, where nothing else is said. The connecting end is a plain descriptor of the caller's.
 */
#ifndef CV_NET_HANDOVER_H
#define CV_NET_HANDOVER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct cv_handover;
struct cv_worker;

enum { CV_HANDOVER_RECORD_BYTES = 96 };

struct cv_handover_record {
    char text[CV_HANDOVER_RECORD_BYTES]; /* what it means is the caller's; zero-terminated */
};

struct cv_handover_ops {
    /* A process of our user has connected. */
    void (*on_peer)(void *arg);
    /* The callee owns `fd`, -1 when none came along. It may drop the peer or close the handover. */
    void (*on_record)(void *arg, const struct cv_handover_record *record, int fd);
    /* The peer has gone, or said what is no record. Not after cv_handover_drop. */
    void (*on_gone)(void *arg);
};

/* --- the offering end --- */

/* Listens in the file system beside `path`, mode 0600: nobody finds it there before
 * cv_handover_publish. Paths may be longer than sun_path, their last part at most 90 bytes.
 * CV_IO, CV_CONFIG (name too long), CV_NO_MEMORY, CV_NO_RESOURCES. */
struct cv_status cv_handover_new(struct cv_worker *worker, const char *path,
                                 const struct cv_handover_ops *ops, void *arg,
                                 struct cv_handover **out, struct cv_error *error);

/* Puts it in the place of whatever is at `path`. Any thread, while the worker lives. CV_IO. */
struct cv_status cv_handover_publish(struct cv_handover *handover, struct cv_error *error);

/* To the peer, at once or not at all; `fd` is borrowed, -1: none. CV_IO, CV_NO_RESOURCES. */
struct cv_status cv_handover_send(struct cv_handover *handover, const char *text, int fd);

/* Closes the connection of the peer. */
void cv_handover_drop(struct cv_handover *handover);

/* Nobody else gets in from now on; the peer stays. `is_left`: the name belongs to the successor by
 * now, or will in a moment, and stays; else it is removed. */
void cv_handover_stop(struct cv_handover *handover, bool is_left);

/* Closes everything. The worker does so at its end, and the pointer must not be used then. NULL is
 * fine. */
void cv_handover_close(struct cv_handover **handover);

/* --- the connecting end: any thread --- */

/* Connects to whoever is published at `path`. CV_NOT_FOUND when nobody is, or nobody listens there
 * any more, CV_AGAIN when it is too busy; CV_IO. `*fd` is the caller's. */
struct cv_status cv_handover_connect(const char *path, int *fd, struct cv_error *error);

/* One record, whole or not at all, never waiting; from several threads at once is fine. `passed`
 * is borrowed, -1: none. CV_EOF when the other side has gone, CV_AGAIN when too much waits there,
 * CV_IO. */
struct cv_status cv_handover_write(int fd, const char *text, int passed);

/* Waits up to `timeout_ms` for a record. *passed (owned by the caller) is -1 when none came along.
 * CV_EOF when the other side has gone, CV_AGAIN when nothing came in time, CV_IO. */
struct cv_status cv_handover_read(int fd, unsigned timeout_ms, struct cv_handover_record *record,
                                  int *passed);

/* Whether the other side has gone. Records that wait do not count as life. */
bool cv_handover_is_gone(int fd);

/* Two connected, non-blocking stream sockets. CV_NO_RESOURCES. */
struct cv_status cv_handover_pair(int fds[2]);

#endif
