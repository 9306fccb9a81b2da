/* SPDX-License-Identifier: MIT
 *
 * Incidents: something is wrong long enough to tell somebody, until it is right again long enough.
 * A table of them, one for each key. Whoever watches says in each round what is wrong (cv_incidents
 * _see), then ends the round; what was not said is over.
 *
 *              debounce over           not seen                calm over
 *   WAITING ─────────────────▶ OPEN ◀──────────────▶ EASING ─────────────▶ OVER
 *      ▲  └─ not seen ──────────────────── seen ─────────────────────────▶ │ ▲
 *      └───────────────────────────────────────────────────────────────────┘
 *
 * What comes and goes is one incident: each time that it comes back before it is forgotten, the
 * calm that it needs doubles, up to CV_INCIDENT_FLAPS_MAX times.
 *
 * The table is the outbox as well. An incident says what each receiver has been told of it, and
 * stays until they know all, at most CV_INCIDENT_KEEP_MS after its end. CV_INCIDENTS_MAX at once;
 * what is more is counted. Pure: clocks come from the caller, monotonic for what lasts, Unix time
 * for what is told. Owns itself; one thread.
 */
#ifndef CV_TELEMETRY_INCIDENT_H
#define CV_TELEMETRY_INCIDENT_H

#include "base/fsm.h"
#include "base/status.h"

enum {
    CV_INCIDENTS_MAX = 64,
    CV_INCIDENT_KEY_LEN = 16,
    CV_INCIDENT_SUBJECT_MAX = 160,
    CV_INCIDENT_SUMMARY_MAX = 160,
    CV_INCIDENT_FLAPS_MAX = 3,
    CV_INCIDENT_MEMORY_CALMS = 10, /* it is forgotten so many times the calm after its end */
    CV_INCIDENT_KEEP_MS = 24 * 3600 * 1000,
};

/* X(ID, "name", "alertname", "severity", "page in docs/runbooks", "dashboard", "description"): the
 * names of deploy/observability/prometheus/rules/alerts.yml, so that Prometheus and the relays
 * speak of the same. */
#define CV_INCIDENT_KINDS(X)                                                                       \
    X(BREAKER, "breaker", "CulvertBreakerOpen", "critical", "breaker-open", "culvert-errors",      \
      "The service of a tunnel failed request after request and is left alone for a while.")       \
    X(ERRORS, "errors", "CulvertErrorRatioHigh", "critical", "error-ratio", "culvert-errors",      \
      "Too many of the requests through this relay fail.")                                         \
    X(STORM, "storm", "CulvertConnectionStorm", "warning", "connection-storm", "culvert-health",   \
      "Agents, or strangers, try to connect faster than they should.")

enum cv_incident_kind {
#define CV_INCIDENT_ID(id, ...) CV_INCIDENT_##id,
    CV_INCIDENT_KINDS(CV_INCIDENT_ID)
#undef CV_INCIDENT_ID
        CV_INCIDENT_KIND_COUNT
};

struct cv_incident_kind_info {
    const char *name, *alertname, *severity, *runbook, *dashboard, *description;
};
const struct cv_incident_kind_info *cv_incident_kind_info(enum cv_incident_kind kind);

enum cv_incident_state {
    CV_INCIDENT_WAITING,
    CV_INCIDENT_OPEN,
    CV_INCIDENT_EASING,
    CV_INCIDENT_OVER,
};
extern const struct cv_fsm_def cv_incident_states;

/* Who is told. */
enum cv_incident_sink { CV_INCIDENT_ALERTMANAGER, CV_INCIDENT_WEBHOOK, CV_INCIDENT_SINK_COUNT };

enum cv_incident_told { CV_TOLD_NOTHING, CV_TOLD_FIRING, CV_TOLD_RESOLVED };

struct cv_incident {
    bool is_used;
    bool is_seen; /* in this round */
    enum cv_incident_kind kind;
    struct cv_fsm fsm;
    /* The same on every relay: of kind and subject, and nothing of this instance. */
    char key[CV_INCIDENT_KEY_LEN + 1];
    char subject[CV_INCIDENT_SUBJECT_MAX + 1]; /* what it is about: a breaker's id; may be "" */
    char summary[CV_INCIDENT_SUMMARY_MAX + 1]; /* as it was seen last */
    uint64_t since_ms;                         /* monotonic: its state began */
    uint64_t starts_ms, ends_ms;               /* Unix time; ends_ms: when OVER */
    unsigned flaps;
    bool was_open;
    enum cv_incident_told told[CV_INCIDENT_SINK_COUNT];
};

struct cv_incidents {
    uint64_t debounce_ms, calm_ms;
    unsigned sinks;      /* 1 << CV_INCIDENT_…: who is to be told */
    uint64_t suppressed; /* for lack of room */
    uint64_t untold;     /* given up: nobody took them in time */
    struct cv_incident all[CV_INCIDENTS_MAX];
};

struct cv_incident_clock {
    uint64_t now_ms;  /* monotonic */
    uint64_t wall_ms; /* Unix time */
};

/* Caller's memory; nothing to give back. */
void cv_incidents_init(struct cv_incidents *incidents, uint64_t debounce_ms, uint64_t calm_ms,
                       unsigned sinks);

/* This is wrong now. Longer texts are cut. */
void cv_incidents_see(struct cv_incidents *incidents, enum cv_incident_kind kind,
                      const char *subject, const char *summary, const struct cv_incident_clock *at);

/* The round is over: what it did not see goes. True: something is to be kept on disk. */
bool cv_incidents_turn(struct cv_incidents *incidents, const struct cv_incident_clock *at);

/* Whether one of this kind is there that is not over: then it is worth looking whether it still
 * is. */
bool cv_incidents_has(const struct cv_incidents *incidents, enum cv_incident_kind kind);

/* What a receiver is to be told of it next; CV_TOLD_NOTHING: nothing. */
enum cv_incident_told cv_incident_due(const struct cv_incident *incident,
                                      enum cv_incident_sink sink);

/* It is to be told as firing, first or again. */
bool cv_incident_is_firing(const struct cv_incident *incident);

/* For what was read from a file: puts one in the place it had, as far as that still counts. An open
 * one is easing from now on. False: there is no room, or it makes no sense. */
struct cv_incident_saved {
    enum cv_incident_kind kind;
    const char *subject, *summary;
    bool is_over;
    uint64_t starts_ms, ends_ms;
    unsigned flaps;
    enum cv_incident_told told[CV_INCIDENT_SINK_COUNT];
};
bool cv_incidents_restore(struct cv_incidents *incidents, const struct cv_incident_saved *saved,
                          const struct cv_incident_clock *at);

#endif
