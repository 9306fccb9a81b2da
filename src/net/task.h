/* SPDX-License-Identifier: MIT
 *
 * Work that waits for the disk, away from the loop: it runs in a thread of libuv's pool (four, for
 * the whole process, shared with name look-ups), and its end is told on the worker that asked.
 */
#ifndef CV_NET_TASK_H
#define CV_NET_TASK_H

#include "base/status.h"
#include "net/worker.h"

/* Runs work(arg) in another thread, then done(arg) on the worker's, always and never inside this
 * call; a worker that stops waits for both. `arg` is the task's until then. CV_NO_MEMORY,
 * CV_NO_RESOURCES: neither runs. Worker's thread. */
struct cv_status cv_task_start(struct cv_worker *worker, void (*work)(void *arg),
                               void (*done)(void *arg), void *arg);

#endif
