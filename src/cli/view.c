/* SPDX-License-Identifier: MIT */
#include "cli/view.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { WIDTH_DEFAULT = 80, LINE_MAX_BYTES = 400 };

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static double number_of(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static const char *duration(double ms, char out[32])
{
    unsigned long s = ms > 0 ? (unsigned long)(ms / 1000) : 0;
    if (s >= 86400)
        (void)snprintf(out, 32, "%lu d %lu h", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        (void)snprintf(out, 32, "%lu h %lu min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        (void)snprintf(out, 32, "%lu min %lu s", s / 60, s % 60);
    else
        (void)snprintf(out, 32, "%lu s", s);
    return out;
}

static const char *amount(double bytes, char out[24])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000;
        unit++;
    }
    (void)snprintf(out, 24, unit && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

/* Controls come out as question marks: what a peer said must not steer the terminal. */
static struct cv_status put(struct cv_buf *out, const char *line)
{
    char plain[LINE_MAX_BYTES];
    size_t len = 0;
    for (const unsigned char *at = (const unsigned char *)line; *at && len + 2 < sizeof plain;
         at++) {
        bool is_c1 = at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0;
        plain[len++] = is_c1 || *at < ' ' || *at == 0x7f ? '?' : (char)*at;
        at += is_c1;
    }
    plain[len++] = '\n';
    return cv_buf_append(out, plain, len);
}

static struct cv_status put_link(const json_t *link, struct cv_buf *out)
{
    const json_t *quality = json_object_get(link, "quality");
    const json_t *error = json_object_get(link, "error");
    char line[LINE_MAX_BYTES], since[32], in[24], sent[24];
    int len = snprintf(line, sizeof line, "  %-10s %.60s for %s", text_of(link, "state"),
                       text_of(link, "relay"), duration(number_of(link, "state_ms"), since));
    char *rest = line + len;
    size_t room = sizeof line - (size_t)len;
    if (json_is_object(error)) {
        (void)snprintf(rest, room, ": %.200s (%.20s)", text_of(error, "message"),
                       text_of(error, "code"));
        CV_RETURN_IF_ERROR(put(out, line));
        if (!json_is_number(json_object_get(link, "next_try_ms")))
            return cv_ok();
        (void)snprintf(line, sizeof line, "             try %.0f, next in %.1f s",
                       number_of(link, "failures") + 1, number_of(link, "next_try_ms") / 1000);
        return put(out, line);
    }
    if (strcmp(text_of(link, "state"), "up") == 0 &&
        json_is_number(json_object_get(quality, "latency_ms")))
        (void)snprintf(rest, room, "  %s, %.1f ms, jitter %.1f ms, loss %.1f %%  in %s/s out %s/s",
                       text_of(quality, "grade"), number_of(quality, "latency_ms"),
                       number_of(quality, "jitter_ms"), number_of(quality, "loss_percent"),
                       amount(number_of(quality, "in_per_second"), in),
                       amount(number_of(quality, "out_per_second"), sent));
    return put(out, line);
}

static struct cv_status put_tunnel(const json_t *tunnel, struct cv_buf *out)
{
    char line[LINE_MAX_BYTES];
    const char *url = text_of(tunnel, "url");
    (void)snprintf(line, sizeof line, "  %-10s %.60s  %.120s%s%.60s%s%.100s",
                   text_of(tunnel, "state"), text_of(tunnel, "name"), url, url[0] ? " -> " : "",
                   text_of(tunnel, "target"), text_of(tunnel, "reason")[0] ? ": " : "",
                   text_of(tunnel, "reason"));
    return put(out, line);
}

static struct cv_status put_forward(const json_t *forward, struct cv_buf *out)
{
    char line[LINE_MAX_BYTES];
    (void)snprintf(line, sizeof line, "  %-10s %.60s -> %.60s  %.0f connections, %.0f waiting",
                   "forward", text_of(forward, "address"), text_of(forward, "tunnel"),
                   number_of(forward, "connections"), number_of(forward, "waiting"));
    return put(out, line);
}

static struct cv_status
put_each(const json_t *list, struct cv_status (*put_one)(const json_t *item, struct cv_buf *out),
         struct cv_buf *out)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        CV_RETURN_IF_ERROR(put_one(json_array_get(list, i), out));
    return cv_ok();
}

struct cv_status cv_view_agent(const json_t *status, struct cv_buf *out)
{
    char line[LINE_MAX_BYTES], age[32];
    (void)snprintf(line, sizeof line, "agent %.0f  %s for %s  streams %.0f now, %.0f so far",
                   number_of(status, "pid"),
                   json_is_true(json_object_get(status, "stopping")) ? "stopping" : "runs",
                   duration(number_of(status, "age_ms"), age), number_of(status, "streams"),
                   number_of(status, "carried"));
    CV_RETURN_IF_ERROR(put(out, line));
    CV_RETURN_IF_ERROR(put_each(json_object_get(status, "links"), put_link, out));
    CV_RETURN_IF_ERROR(put_each(json_object_get(status, "tunnels"), put_tunnel, out));
    return put_each(json_object_get(status, "forwards"), put_forward, out);
}

/* ---- the screen ---- */

void cv_view_init(struct cv_view *view)
{
    *view = (struct cv_view){.is_terminal = isatty(STDOUT_FILENO)};
}

static size_t width(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col
                                                                           : WIDTH_DEFAULT;
}

/* Characters of UTF-8, each taken for one column wide: a line must not run into the next one, or
 * the count of lines is wrong. */
static size_t cut(struct cv_slice line, size_t columns)
{
    size_t used = 0, i = 0;
    for (; i < line.len; i++) {
        bool begins = (line.data[i] & 0xc0) != 0x80;
        if (begins && used == columns)
            break;
        used += begins;
    }
    return i;
}

void cv_view_show(struct cv_view *view, const struct cv_buf *text)
{
    struct cv_slice rest = cv_buf_slice(text);
    size_t columns = width() - 1;
    if (view->lines)
        (void)printf("\x1b[%uA", view->lines); /* ECMA-48: cursor up, then erase to line's end */
    view->lines = 0;
    while (rest.len) {
        struct cv_slice line = cv_slice_split(&rest, '\n');
        (void)printf("%.*s\x1b[K\n", (int)cut(line, columns), (const char *)line.data);
        view->lines++;
    }
    (void)printf("\x1b[J");
    (void)fflush(stdout);
}

void cv_view_tell(struct cv_view *view, const json_t *status)
{
    const json_t *link = json_array_get(json_object_get(status, "links"), 0);
    const json_t *quality = json_object_get(link, "quality");
    const char *state = text_of(link, "state"), *grade = text_of(quality, "grade");
    bool is_up = strcmp(state, "up") == 0;
    char line[sizeof view->state];
    if (!link || (is_up && strcmp(grade, "unknown") == 0))
        return;
    (void)snprintf(line, sizeof line, "%.20s to %.100s%s%.20s", state, text_of(link, "relay"),
                   is_up ? ", quality " : "", is_up ? grade : "");
    if (strcmp(line, view->state) == 0)
        return;
    memcpy(view->state, line, sizeof line);
    struct cv_buf text;
    cv_buf_init(&text, LINE_MAX_BYTES);
    if (cv_is_ok(put(&text, line)))
        (void)fwrite(cv_buf_head(&text), 1, cv_buf_len(&text), stdout);
    (void)fflush(stdout);
    cv_buf_done(&text);
}

void cv_view_leave(struct cv_view *view)
{
    view->lines = 0;
}
