/* SPDX-License-Identifier: MIT
 *
 * The way to the relay and through it, one stage after the other, each by the code that agents use
 * (net/resolve, net/dial, agent/dialer, transport/link): what it found, how long it took, what to
 * do. The first stage that fails explains those behind it, which are not tried then; local services
 * are looked at in any case.
 *
 * The last stages send bytes around: CV_DIAGNOSE_NAME is a tunnel of this link to itself, so that
 * they pass the relay as those of a request do (agent → relay → agent → relay → agent).
 *
 * Owns what is under way; borrows access, log and targets. Holds at most 2 MiB of test bytes and a
 * stream's window. Its worker's thread; callbacks come from the loop.
 */
#ifndef CV_AGENT_DIAGNOSE_H
#define CV_AGENT_DIAGNOSE_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cv_access;
struct cv_diagnose;
struct cv_log;
struct cv_worker;

enum { CV_DIAGNOSE_TARGETS_MAX = 16 };

enum cv_diagnose_verdict { CV_DIAGNOSE_PASSED, CV_DIAGNOSE_FAILED, CV_DIAGNOSE_SKIPPED };

struct cv_diagnose_finding {
    const char
        *name; /* "dns", "tcp", "proxy", "tls", "upgrade", "token", "ssh", "tunnel", "service",
                  "data", "latency", "throughput": always all of them, in this order */
    enum cv_diagnose_verdict verdict;
    uint64_t duration_us;
    struct cv_status why;   /* of a failure; else CV_OK */
    const char *finding;    /* a sentence */
    const char *suggestion; /* what to do about a failure; may be "" */
    const json_t *details;  /* an object, docs/diagnose.md has its members; never NULL */
};

struct cv_diagnose_ops {
    /* A stage is over. Everything in it is valid for the call. */
    void (*on_finding)(void *arg, const struct cv_diagnose_finding *finding);
    /* The last callback, after the last stage or cv_diagnose_stop. */
    void (*on_ended)(void *arg);
};

struct cv_diagnose_options {
    const struct cv_access *access;
    struct cv_log *log;
    const char *const *targets; /* local services, as `culvert http` takes them */
    size_t target_count;        /* at most CV_DIAGNOSE_TARGETS_MAX */
};

/* Begins. CV_USAGE: a target that cannot be read; CV_CONFIG: a proxy that cannot be; CV_NO_MEMORY.
 * Nothing is held then. */
struct cv_status cv_diagnose_new(struct cv_worker *worker,
                                 const struct cv_diagnose_options *options,
                                 const struct cv_diagnose_ops *ops, void *arg,
                                 struct cv_diagnose **diagnose, struct cv_error *error);

/* No more stages; the link, if there is one, is closed in good order. on_ended follows. */
void cv_diagnose_stop(struct cv_diagnose *diagnose);

/* After on_ended or after the worker has ended. Takes NULL, nulls. */
void cv_diagnose_free(struct cv_diagnose **diagnose);

#endif
