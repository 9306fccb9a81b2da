/* SPDX-License-Identifier: MIT
 *
 * What the tests of a whole relay share: a relay in this process, agents that answer streams with
 * scripted bytes, and HTTP clients on blocking sockets in the thread of the test. Nothing here can
 * hang: sockets and waits give up after BENCH_WAIT_S, and main sets an alarm.
 */
#ifndef CV_RELAY_RELAY_BENCH_H
#define CV_RELAY_RELAY_BENCH_H

#include "base/test.h"

#include "base/buf.h"
#include "config/relay_config.h"
#include "relay/relay.h"
#include "telemetry/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { BENCH_WAIT_S = 20, BENCH_SETTINGS_MAX = 8, BENCH_SEEN_MAX = 1 << 20 };

/* ---- relay ---- */

struct bench {
    char state_dir[64];
    struct cv_relay_config *config;
    struct cv_log log;
    struct cv_relay *relay;
    unsigned port;
    struct cv_buf token; /* of "alice", NUL-terminated */
};

/* `settings` are key, value pairs ending with NULL, or NULL. */
void bench_start(struct bench *bench, const char *workers, const char *const *settings);
void bench_stop(struct bench *bench);
/* Appends a token of the development issuer and a NUL. */
void bench_token(const struct bench *bench, const char *subject, struct cv_buf *out);

/* ---- agent ---- */

/* One tunnel that an agent publishes: what it is called says how its streams behave.
 *   refuse…   the stream is refused: service-refused
 *   timeout…  the stream is refused: service-timeout
 *   tcp…      bytes come back as they are
 *   silent…   never answers the stream's open
 *   all else  HTTP, see relay_bench_service.c */
struct fake_tunnel {
    const char *name;
    const char *json; /* of tunnel@culvert; NULL: foreign publisher */
    unsigned port;
};

struct fake_stream;

struct fake_agent {
    struct bench *bench;
    const char *token;    /* NULL: alice's */
    const char *agent_id; /* 32 hex digits; NULL: none */
    const char *protocol; /* NULL: culvert.v1 */
    uint32_t accept_delay_ms;
    struct fake_tunnel tunnels[8];

    struct cv_worker *worker;
    struct cv_link *link;
    struct cv_conn *conn;
    struct fake_stream *streams; /* utlist DL */
    struct cv_buf head;          /* of the 101 */
    size_t replies;

    /* Shared with the test. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct cv_buf seen; /* every byte that reached a service */
    unsigned refused_requests;
    char notice[64], notice_tunnel[64];
    bool is_ready, is_closed;
    struct cv_status why;
    atomic_bool hangs; /* /hang-once gets no answer */
    unsigned hung;
    unsigned opened, open, most_open, requests;
    uint64_t sent; /* bytes that services got rid of */
};

/* Connects, publishes the tunnels, and returns when all requests are answered. */
void fake_agent_start(struct fake_agent *agent, struct bench *bench);
/* Joins its thread; the socket closes. */
void fake_agent_stop(struct fake_agent *agent);
/* Waits until `is_true`; fails the test when that takes too long. */
void fake_agent_wait(struct fake_agent *agent, bool (*is_true)(const struct fake_agent *agent),
                     const char *what);
/* Bytes that services have seen so far, as text; to be freed. */
char *fake_agent_seen(struct fake_agent *agent);
unsigned fake_agent_count(struct fake_agent *agent, const unsigned *counter);

/* What a direct-tcpip stream brought. */
struct direct {
    struct cv_buf in;
    bool is_refused, is_over;
    char refusal[128];
};

/* Opens a stream to `name`:`port`, sends `text` (then EOF with `is_half_closed`), and waits until
 * `needle` has come, or the stream has ended when it is NULL. */
void fake_agent_direct(struct fake_agent *agent, const char *name, unsigned port,
                       struct cv_slice text, bool is_half_closed, const char *needle,
                       struct direct *direct);

/* ---- inside the agent: relay_bench_service.c ---- */

struct cv_stream;

struct fake_stream {
    struct fake_agent *agent;
    struct cv_stream *stream;
    char name[64];
    struct cv_buf in, out;
    uint64_t endless; /* bytes still to be sent behind out */
    bool is_raw, is_eof_due, is_close_due, is_eof_sent, is_deaf;
    struct cv_timer delay;
    struct fake_stream *prev, *next;
};

void service_accept(struct fake_agent *agent, struct cv_stream *stream, struct cv_slice host);
void service_end_all(struct fake_agent *agent);

/* ---- client ---- */

struct answer {
    int status;
    char head[8192];
    struct cv_buf body;
    bool is_cut;   /* the connection ended before the answer did */
    bool is_reset; /* … by a reset */
};

int client_connect(const struct bench *bench);
void client_send(int fd, const char *text);
void client_send_bytes(int fd, const void *data, size_t len);
/* Reads one final answer, or an interim one with `takes_interim`; `is_head`: no body follows. */
void client_read(int fd, struct answer *answer, bool is_head, bool takes_interim);
void answer_done(struct answer *answer);
/* The value of a field, "" without; until the next call of this thread. */
const char *answer_field(const struct answer *answer, const char *name);
bool answer_has(const struct answer *answer, const char *text); /* in the body */
/* True when the relay closes the connection in time without sending anything more. */
bool client_is_closed(int fd);
/* Reads `len` bytes. */
void client_read_bytes(int fd, char *out, size_t len);

/* One request on a connection of its own. `head` are further field lines, or NULL. */
void client_request(const struct bench *bench, const char *method, const char *target,
                    const char *head, const char *body, struct answer *answer);
/* "METHOD target HTTP/1.1", Host, token, fields, blank line; to be freed. */
char *client_head(const struct bench *bench, const char *method, const char *target,
                  const char *fields);

#endif
