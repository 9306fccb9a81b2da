/* SPDX-License-Identifier: MIT */
#include "net/task.h"

#include "net/worker_priv.h"

#include <stdlib.h>
#include <uv.h>

struct task {
    uv_work_t request;
    void (*work)(void *arg);
    void (*done)(void *arg);
    void *arg;
};

static void on_work(uv_work_t *request)
{
    struct task *task = request->data;
    task->work(task->arg);
}

/* Nobody cancels it, so it has run. */
static void on_done(uv_work_t *request, int error)
{
    struct task *task = request->data;
    (void)error;
    task->done(task->arg);
    free(task);
}

struct cv_status cv_task_start(struct cv_worker *worker, void (*work)(void *arg),
                               void (*done)(void *arg), void *arg)
{
    struct task *task = malloc(sizeof *task);
    if (!task)
        return cv_status(CV_NO_MEMORY);
    *task = (struct task){.work = work, .done = done, .arg = arg};
    task->request.data = task;
    if (uv_queue_work(cv_worker_loop(worker), &task->request, on_work, on_done) == 0)
        return cv_ok();
    free(task);
    return cv_status(CV_NO_RESOURCES);
}
