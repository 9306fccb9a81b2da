/* SPDX-License-Identifier: MIT
 *
 * What the other files of net/ need from a worker. Not for use outside this folder.
 */
#ifndef CV_NET_WORKER_PRIV_H
#define CV_NET_WORKER_PRIV_H

#include "net/worker.h"

struct uv_loop_s;
struct cv_fetcher;

/* An object that lives on the worker and has to be closed before its loop can end: a field of it.
 */
struct cv_worker_item {
    struct cv_worker_item *prev, *next;
    void (*on_stop)(void *arg); /* the worker ends: close yourself, now or by a defer */
    void *arg;
    bool is_told;
};

void cv_worker_item_add(struct cv_worker *worker, struct cv_worker_item *item,
                        void (*on_stop)(void *arg), void *arg);
void cv_worker_item_remove(struct cv_worker *worker, struct cv_worker_item *item);

struct uv_loop_s *cv_worker_loop(struct cv_worker *worker);

/* CV_WORKER_READ_BUFFER_BYTES that whoever reads from a socket may use until it returns to the
 * loop. */
uint8_t *cv_worker_read_buffer(struct cv_worker *worker);

/* Work that strangers can ask for and that takes long, which is TLS handshakes, has a few
 * milliseconds in a turn of the loop; then others have their turn. True while there is time left;
 * cv_worker_spend says what was taken of it, in nanoseconds. */
bool cv_worker_has_time(const struct cv_worker *worker);
void cv_worker_spend(struct cv_worker *worker, uint64_t spent_ns);

/* The connection whose callbacks are running, or NULL. Only compared. */
void **cv_worker_busy_with(struct cv_worker *worker);

/* The worker's libcurl handle, made on first use; freed by cv_fetcher_free when the worker ends. */
struct cv_fetcher **cv_worker_fetcher(struct cv_worker *worker);
void cv_fetcher_close(struct cv_fetcher **fetcher); /* in fetch.c */

#endif
