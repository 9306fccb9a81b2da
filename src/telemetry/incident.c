/* SPDX-License-Identifier: MIT */
#include "telemetry/incident.h"

#include "base/digest.h"

#include <stdio.h>
#include <string.h>

static const struct cv_incident_kind_info kinds[] = {
#define KIND_INFO(id, name, alertname, severity, runbook, dashboard, description)                  \
    [CV_INCIDENT_##id] = {name, alertname, severity, runbook, dashboard, description},
    CV_INCIDENT_KINDS(KIND_INFO)
#undef KIND_INFO
};

const struct cv_incident_kind_info *cv_incident_kind_info(enum cv_incident_kind kind)
{
    return &kinds[kind];
}

static const char *const state_names[] = {"waiting", "open", "easing", "over"};
static const struct cv_fsm_step steps[] = {
    {CV_INCIDENT_WAITING, CV_INCIDENT_OPEN, "seen for as long as the debounce"},
    {CV_INCIDENT_WAITING, CV_INCIDENT_OVER, "seen too short: it was nothing"},
    {CV_INCIDENT_OPEN, CV_INCIDENT_EASING, "not seen any more"},
    {CV_INCIDENT_EASING, CV_INCIDENT_OPEN, "seen again"},
    {CV_INCIDENT_EASING, CV_INCIDENT_OVER, "not seen for as long as the calm"},
    {CV_INCIDENT_OVER, CV_INCIDENT_WAITING, "seen again before it was forgotten"},
};
const struct cv_fsm_def cv_incident_states = {
    .name = "incident", .states = state_names, .count = 4, CV_FSM_STEPS(steps)};

void cv_incidents_init(struct cv_incidents *incidents, uint64_t debounce_ms, uint64_t calm_ms,
                       unsigned sinks)
{
    *incidents = (struct cv_incidents){
        .debounce_ms = debounce_ms, .calm_ms = calm_ms ? calm_ms : 1, .sinks = sinks};
}

static enum cv_incident_state state_of(const struct cv_incident *incident)
{
    return (enum cv_incident_state)incident->fsm.state;
}

static void set_state(struct cv_incident *incident, enum cv_incident_state state,
                      const struct cv_incident_clock *at)
{
    cv_fsm_set(&incident->fsm, state);
    incident->since_ms = at->now_ms;
}

static void make_key(enum cv_incident_kind kind, const char *subject,
                     char key[CV_INCIDENT_KEY_LEN + 1])
{
    char text[64 + CV_INCIDENT_SUBJECT_MAX];
    uint8_t digest[CV_SHA256_LEN];
    (void)snprintf(text, sizeof text, "%s\n%.*s", kinds[kind].name, CV_INCIDENT_SUBJECT_MAX,
                   subject);
    cv_sha256(cv_slice_str(text), digest);
    cv_hex_encode(cv_slice(digest, CV_INCIDENT_KEY_LEN / 2), key);
}

static struct cv_incident *find(struct cv_incidents *incidents, const char *key)
{
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++)
        if (incidents->all[i].is_used && strcmp(incidents->all[i].key, key) == 0)
            return &incidents->all[i];
    return NULL;
}

/* What each receiver that is to be told has been told. */
static bool is_told(const struct cv_incidents *incidents, const struct cv_incident *incident)
{
    for (unsigned sink = 0; sink < CV_INCIDENT_SINK_COUNT; sink++)
        if ((incidents->sinks & 1U << sink) &&
            cv_incident_due(incident, (enum cv_incident_sink)sink) != CV_TOLD_NOTHING)
            return false;
    return true;
}

/* A free place, or that of the one that ended longest ago and about which nobody waits. */
static struct cv_incident *make_room(struct cv_incidents *incidents)
{
    struct cv_incident *oldest = NULL;
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++) {
        struct cv_incident *incident = &incidents->all[i];
        if (!incident->is_used)
            return incident;
        if (state_of(incident) == CV_INCIDENT_OVER && is_told(incidents, incident) &&
            (!oldest || incident->since_ms < oldest->since_ms))
            oldest = incident;
    }
    return oldest;
}

static struct cv_incident *add(struct cv_incidents *incidents, enum cv_incident_kind kind,
                               const char *subject, const struct cv_incident_clock *at)
{
    struct cv_incident *incident = make_room(incidents);
    if (!incident) {
        incidents->suppressed++;
        return NULL;
    }
    *incident = (struct cv_incident){.is_used = true,
                                     .kind = kind,
                                     .fsm = {.def = &cv_incident_states},
                                     .since_ms = at->now_ms,
                                     .starts_ms = at->wall_ms};
    (void)snprintf(incident->subject, sizeof incident->subject, "%s", subject);
    make_key(kind, subject, incident->key);
    return incident;
}

/* Somebody has heard of its beginning and not of its end. */
static bool is_going_on(const struct cv_incident *incident)
{
    for (unsigned sink = 0; sink < CV_INCIDENT_SINK_COUNT; sink++)
        if (incident->told[sink] == CV_TOLD_FIRING)
            return true;
    return false;
}

/* ---- rounds ---- */

void cv_incidents_see(struct cv_incidents *incidents, enum cv_incident_kind kind,
                      const char *subject, const char *summary, const struct cv_incident_clock *at)
{
    char key[CV_INCIDENT_KEY_LEN + 1];
    make_key(kind, subject, key);
    struct cv_incident *incident = find(incidents, key);
    if (!incident)
        incident = add(incidents, kind, subject, at);
    if (!incident)
        return;
    incident->is_seen = true;
    (void)snprintf(incident->summary, sizeof incident->summary, "%s", summary);
}

static void come_back(struct cv_incident *incident)
{
    if (incident->flaps < CV_INCIDENT_FLAPS_MAX)
        incident->flaps++;
}

static bool turn_seen(const struct cv_incidents *incidents, struct cv_incident *incident,
                      const struct cv_incident_clock *at)
{
    switch (state_of(incident)) {
    case CV_INCIDENT_OVER:
        set_state(incident, CV_INCIDENT_WAITING, at);
        return false;
    case CV_INCIDENT_WAITING:
        if (at->now_ms - incident->since_ms < incidents->debounce_ms)
            return false;
        if (incident->was_open)
            come_back(incident);
        /* For who has not heard of its end it is still the same. */
        if (!is_going_on(incident))
            incident->starts_ms = at->wall_ms;
        incident->was_open = true;
        incident->ends_ms = 0;
        set_state(incident, CV_INCIDENT_OPEN, at);
        return true;
    case CV_INCIDENT_EASING:
        come_back(incident);
        set_state(incident, CV_INCIDENT_OPEN, at);
        return true;
    case CV_INCIDENT_OPEN:
        break;
    }
    return false;
}

static bool turn_unseen(struct cv_incidents *incidents, struct cv_incident *incident,
                        const struct cv_incident_clock *at)
{
    uint64_t gone_ms = at->now_ms - incident->since_ms;
    switch (state_of(incident)) {
    case CV_INCIDENT_OPEN:
        set_state(incident, CV_INCIDENT_EASING, at);
        return false;
    case CV_INCIDENT_EASING:
        if (gone_ms < incidents->calm_ms << incident->flaps)
            return false;
        set_state(incident, CV_INCIDENT_OVER, at);
        incident->ends_ms = at->wall_ms;
        return true;
    case CV_INCIDENT_WAITING:
        set_state(incident, CV_INCIDENT_OVER, at);
        incident->is_used = incident->was_open;
        return false;
    case CV_INCIDENT_OVER:
        if (!is_told(incidents, incident) && gone_ms >= CV_INCIDENT_KEEP_MS)
            incidents->untold++;
        else if (!is_told(incidents, incident) ||
                 gone_ms < (incidents->calm_ms << incident->flaps) * CV_INCIDENT_MEMORY_CALMS)
            return false;
        incident->is_used = false;
        return true;
    }
    return false;
}

bool cv_incidents_turn(struct cv_incidents *incidents, const struct cv_incident_clock *at)
{
    bool has_changed = false;
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++) {
        struct cv_incident *incident = &incidents->all[i];
        if (!incident->is_used)
            continue;
        has_changed |= incident->is_seen ? turn_seen(incidents, incident, at)
                                         : turn_unseen(incidents, incident, at);
        incident->is_seen = false;
    }
    return has_changed;
}

bool cv_incidents_has(const struct cv_incidents *incidents, enum cv_incident_kind kind)
{
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++) {
        const struct cv_incident *incident = &incidents->all[i];
        if (incident->is_used && incident->kind == kind && state_of(incident) != CV_INCIDENT_OVER)
            return true;
    }
    return false;
}

/* ---- telling ---- */

bool cv_incident_is_firing(const struct cv_incident *incident)
{
    return incident->is_used &&
           (state_of(incident) == CV_INCIDENT_OPEN || state_of(incident) == CV_INCIDENT_EASING);
}

enum cv_incident_told cv_incident_due(const struct cv_incident *incident,
                                      enum cv_incident_sink sink)
{
    enum cv_incident_told told = incident->told[sink];
    if (cv_incident_is_firing(incident))
        return told == CV_TOLD_FIRING ? CV_TOLD_NOTHING : CV_TOLD_FIRING;
    if (!incident->is_used || !incident->was_open || state_of(incident) != CV_INCIDENT_OVER)
        return CV_TOLD_NOTHING;
    if (told == CV_TOLD_FIRING)
        return CV_TOLD_RESOLVED;
    /* A webhook keeps a record: it hears of what it missed. Alertmanager knows only what is. */
    return told == CV_TOLD_NOTHING && sink == CV_INCIDENT_WEBHOOK ? CV_TOLD_FIRING
                                                                  : CV_TOLD_NOTHING;
}

bool cv_incidents_restore(struct cv_incidents *incidents, const struct cv_incident_saved *saved,
                          const struct cv_incident_clock *at)
{
    char key[CV_INCIDENT_KEY_LEN + 1];
    make_key(saved->kind, saved->subject, key);
    bool is_old = saved->is_over && saved->ends_ms + CV_INCIDENT_KEEP_MS < at->wall_ms;
    struct cv_incident *incident =
        is_old || find(incidents, key) ? NULL : add(incidents, saved->kind, saved->subject, at);
    if (!incident)
        return false;
    (void)snprintf(incident->summary, sizeof incident->summary, "%s", saved->summary);
    incident->was_open = true;
    incident->starts_ms = saved->starts_ms;
    incident->flaps =
        saved->flaps < CV_INCIDENT_FLAPS_MAX ? saved->flaps : (unsigned)CV_INCIDENT_FLAPS_MAX;
    memcpy(incident->told, saved->told, sizeof incident->told);
    set_state(incident, CV_INCIDENT_OPEN, at);
    set_state(incident, CV_INCIDENT_EASING, at);
    if (saved->is_over) {
        set_state(incident, CV_INCIDENT_OVER, at);
        incident->ends_ms = saved->ends_ms;
    }
    return true;
}
