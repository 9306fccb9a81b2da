/* SPDX-License-Identifier: MIT
 *
 * What the files of the management API share: api.c (which call it is, who may, its body),
 * api_state.c (tunnels, links, breakers, queue), api_gather.c (asking all workers), api_history.c
 * (numbers of the past), api_config.c (settings), api_revocations.c. The
 * calls are described in docs/openapi.yaml. Everything runs on the worker of the consumer's
 * connection. Nobody else includes this.
 */
#ifndef CV_RELAY_API_PRIVATE_H
#define CV_RELAY_API_PRIVATE_H

#include "relay/consumer_private.h"

#include <jansson.h>

enum { API_BODY_MAX = 64 * 1024 };

/* Answers 200 (or `status`) with `value`, whose reference is taken; NULL: there was no memory. */
void api_answer(struct cv_consumer *c, int status, json_t *value);
/* An error of the consumer's: 422 with a sentence. */
void api_refuse(struct cv_consumer *c, const char *detail);
/* A member that is a string without NUL; NULL when it is not there. False: of another type, or
 * longer than `max` bytes. */
bool api_text(const json_t *body, const char *name, size_t max, const char **out);

/* Something asked of every worker in turn; the beginning of what a call keeps for it, from the
 * heap. The call sets the functions before the start. */
struct gather {
    atomic_uint refs; /* the consumer's, and the one that travels */
    struct cv_mail mail;
    struct cv_relay *relay;
    struct cv_consumer *consumer; /* its worker only; NULL: gone */
    unsigned home, next;
    void (*on_worker)(struct gather *gather, struct cv_relay_worker *worker); /* on its thread */
    void (*on_home)(struct gather *gather); /* at the end; takes the reference that travelled */
    void (*on_free)(struct gather *gather);
};
/* Takes the reference that the call has. */
void api_gather_start(struct cv_consumer *c, struct gather *gather);
void api_gather_unref(struct gather *gather);

/* The calls: `body` is NULL where there is none. */
void api_tunnels(struct cv_consumer *c, const json_t *body);
void api_link_close(struct cv_consumer *c, const json_t *body);
void api_queue(struct cv_consumer *c, const json_t *body);
void api_history(struct cv_consumer *c, const json_t *body);
void api_usage(struct cv_consumer *c, const json_t *body);
void api_breakers(struct cv_consumer *c, const json_t *body);
void api_breaker_reset(struct cv_consumer *c, const json_t *body);
void api_diagnostics(struct cv_consumer *c, const json_t *body);
void api_metrics(struct cv_consumer *c, const json_t *body);
void api_config_get(struct cv_consumer *c, const json_t *body);
void api_config_patch(struct cv_consumer *c, const json_t *body);
void api_revocations_get(struct cv_consumer *c, const json_t *body);
void api_revocations_post(struct cv_consumer *c, const json_t *body);
void api_revocations_delete(struct cv_consumer *c, const json_t *body);

/* The request has ended while its answer waited for the disk. */
void api_revocations_forget(struct cv_consumer *c);

/* Who asks, and that it was done, for the audit log. */
void api_audit(const struct cv_consumer *c, const char *action, const char *subject);

#endif
