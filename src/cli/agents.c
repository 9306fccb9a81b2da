/* SPDX-License-Identifier: MIT */
#include "cli/agents.h"

#include "base/buf.h"
#include "cli/cli.h"
#include "config/state_dir.h"
#include "net/desk.h"
#include "proto/http/url.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

enum {
    ANSWER_MS = 1000, /* of all that are asked at once, and of one that is asked alone */
    ANSWERED_MS = 20, /* for one whose answer came while another one was waited for */
};

/* ---- which ones ---- */

/* "host:port" as agents name their relay. */
static struct cv_status read_server(const char *server, char *relay, size_t cap,
                                    struct cv_error *error)
{
    struct cv_url url;
    struct cv_error reason = {0};
    relay[0] = '\0';
    if (!server)
        return cv_ok();
    if (!cv_is_ok(cv_url_parse(cv_slice_str(server), false, &url, &reason)))
        return cv_fail(error, CV_USAGE, "--server: %.200s", reason.detail);
    (void)snprintf(relay, cap, url.is_ipv6 ? "[%.*s]:%u" : "%.*s:%u", (int)url.host.len,
                   url.host.data, url.port);
    return cv_ok();
}

static bool has_link_to(const json_t *status, const char *relay)
{
    const json_t *links = json_object_get(status, "links");
    for (size_t i = 0; i < json_array_size(links); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(links, i), "relay"));
        if (name && strcasecmp(name, relay) == 0)
            return true;
    }
    return false;
}

/* The process of "<pid>.sock"; 0 for any other name, such as that of a relay's socket. */
static long pid_of(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 10 || name[0] == '0' || strcmp(name + digits, ".sock") != 0)
        return 0;
    return strtol(name, NULL, 10);
}

/* ---- asking ---- */

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct cv_status read_answer(const struct cv_found_agent *agent, unsigned ms,
                                    json_t **answer, struct cv_error *error)
{
    struct cv_buf text;
    *answer = NULL;
    cv_buf_init(&text, CV_DESK_ANSWER_MAX);
    struct cv_status status = cv_desk_get(agent->fd, ms, &text, error);
    if (cv_is_ok(status))
        status = cv_json_parse(cv_buf_slice(&text), answer);
    cv_buf_done(&text);
    if (status.id == CV_INVALID || (cv_is_ok(status) && !json_is_object(*answer)))
        status = cv_fail(error, CV_INVALID, "its answer makes no sense");
    const json_t *refusal = json_object_get(*answer, "error");
    const char *message = json_string_value(json_object_get(refusal, "message"));
    if (cv_is_ok(status) && refusal)
        status = cv_fail(error, CV_INVALID, "%.200s", message ? message : "it refuses");
    if (!cv_is_ok(status)) {
        json_decref(*answer);
        *answer = NULL;
    }
    return status;
}

struct cv_status cv_agents_ask(const struct cv_found_agent *agent, const char *question,
                               json_t **answer, struct cv_error *error)
{
    *answer = NULL;
    CV_RETURN_IF_ERROR(cv_desk_put(agent->fd, cv_slice_str(question), ANSWER_MS, error));
    return read_answer(agent, ANSWER_MS, answer, error);
}

static void close_one(struct cv_found_agent *agent)
{
    if (agent->fd >= 0)
        (void)close(agent->fd);
    json_decref(agent->status);
    *agent = (struct cv_found_agent){.fd = -1};
}

/* Asks, without waiting for the answer. False: nobody is there. */
static bool meet(const char *path, long pid, struct cv_found_agent *agent)
{
    *agent = (struct cv_found_agent){.pid = pid, .fd = -1};
    struct cv_status status = cv_desk_connect(path, &agent->fd, &agent->error);
    if (status.id == CV_NOT_FOUND) {
        /* A name that is there has a listener for as long as its process lives. */
        (void)unlink(path);
        return false;
    }
    if (cv_is_ok(status))
        status = cv_desk_put(agent->fd, cv_slice_str("{\"command\":\"status\"}"), ANSWERED_MS,
                             &agent->error);
    if (status.id != CV_EOF)
        return true;
    close_one(agent);
    return false;
}

/* Until `until_ms`. False: it ended in this moment, or it is not asked for. */
static bool hear(struct cv_found_agent *agent, const char *relay, uint64_t until_ms)
{
    uint64_t now_ms = clock_ms();
    uint64_t left_ms = until_ms > now_ms + ANSWERED_MS ? until_ms - now_ms : ANSWERED_MS;
    if (agent->error.id != CV_OK)
        return true;
    struct cv_status status = read_answer(agent, (unsigned)left_ms, &agent->status, &agent->error);
    return status.id != CV_EOF &&
           (!cv_is_ok(status) || !relay[0] || has_link_to(agent->status, relay));
}

/* ---- finding ---- */

static int by_pid(const void *a, const void *b)
{
    long left = ((const struct cv_found_agent *)a)->pid;
    long right = ((const struct cv_found_agent *)b)->pid;
    return (left > right) - (left < right);
}

static struct cv_status look(const char *folder, struct cv_agents *agents, struct cv_error *error)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? cv_ok() : cv_fail_errno(error, CV_IO, errno, "%.200s", folder);
    for (struct dirent *entry; agents->count < CV_AGENTS_MAX && (entry = readdir(dir));) {
        char path[PATH_MAX];
        long pid = pid_of(entry->d_name);
        if (pid && cv_is_ok(cv_state_dir_path(folder, entry->d_name, path, sizeof path, NULL)) &&
            meet(path, pid, &agents->items[agents->count]))
            agents->count++;
    }
    (void)closedir(dir);
    uint64_t until_ms = clock_ms() + ANSWER_MS;
    size_t kept = 0;
    for (size_t i = 0; i < agents->count; i++) {
        if (hear(&agents->items[i], agents->relay, until_ms))
            agents->items[kept++] = agents->items[i];
        else
            close_one(&agents->items[i]);
    }
    agents->count = kept;
    qsort(agents->items, agents->count, sizeof *agents->items, by_pid);
    return cv_ok();
}

struct cv_status cv_agents_find(const char *server, struct cv_agents *agents,
                                struct cv_error *error)
{
    char state_dir[PATH_MAX], folder[PATH_MAX];
    *agents = (struct cv_agents){0};
    CV_RETURN_IF_ERROR(read_server(server, agents->relay, sizeof agents->relay, error));
    CV_RETURN_IF_ERROR(
        cv_state_dir_open(getenv("CULVERT_STATE_DIR"), state_dir, sizeof state_dir, error));
    CV_RETURN_IF_ERROR(cv_state_dir_path(state_dir, "run", folder, sizeof folder, error));
    agents->items = calloc(CV_AGENTS_MAX, sizeof *agents->items);
    if (!agents->items)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = look(folder, agents, error);
    if (cv_is_ok(status) && agents->count == 0)
        status =
            cv_fail(error, CV_NOT_FOUND, "no agent%s%.100s runs here, as far as %.100s/run tells",
                    server ? " with a link to " : "", agents->relay, state_dir);
    if (!cv_is_ok(status))
        cv_agents_free(agents);
    return status;
}

void cv_agents_free(struct cv_agents *agents)
{
    for (size_t i = 0; i < agents->count; i++)
        close_one(&agents->items[i]);
    free(agents->items);
    *agents = (struct cv_agents){0};
}

int cv_agents_complain(struct cv_status status, const struct cv_error *error)
{
    if (status.id == CV_NOT_FOUND)
        (void)fprintf(stderr, "culvert: %s\n", error->detail);
    else
        cv_cli_complain(status.id, error);
    return cv_cli_exit_code(status.id);
}

void cv_agents_print_text(const char *text, FILE *to)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        bool is_c1 = at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0;
        (void)fputc(is_c1 || *at < ' ' || *at == 0x7f ? '?' : *at, to);
        at += is_c1;
    }
}
