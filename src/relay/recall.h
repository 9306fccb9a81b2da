/* SPDX-License-Identifier: MIT
 *
 * Which tunnels there were before this process began: a consumer of one of them hears that its
 * agent is away (503), not that there is no such tunnel (404), also in the moment between a restart
 * and the agent's return. Kept for 24 hours in one small file for each relay.
 *
 * The file holds no names, only a hash over user and name with the time it was seen last, one in a
 * line; the newest CV_RECALL_MAX. What was read does not change afterwards: any thread may ask.
 */
#ifndef CV_RELAY_RECALL_H
#define CV_RELAY_RECALL_H

#include "relay/registry.h"

enum { CV_RECALL_MAX = 10000, CV_RECALL_S = 24 * 3600 };

struct cv_recall;

/* Reads `path`, which need not be there; lines that make no sense are passed over. `now_s` is Unix
 * time. CV_IO, CV_CONFIG (no such file that it could be), CV_NO_MEMORY: *recall is NULL then, which
 * the functions below take as one that knows nothing. */
struct cv_status cv_recall_new(const char *path, int64_t now_s, struct cv_recall **recall,
                               struct cv_error *error);
void cv_recall_free(struct cv_recall **recall);

/* Whether `user` had a tunnel `name` in the last 24 hours. */
bool cv_recall_has(const struct cv_recall *recall, const struct cv_user_key *user,
                   struct cv_slice name, int64_t now_s);

/* Writes what was read and what `registry` has, at once. `now_ms` is the registry's clock. Blocks;
 * one thread at a time. CV_IO, CV_NO_MEMORY; the file stays as it was then. */
struct cv_status cv_recall_save(const struct cv_recall *recall, struct cv_registry *registry,
                                uint64_t now_ms, int64_t now_s, struct cv_error *error);

#endif
