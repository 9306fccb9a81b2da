/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "config/agent_config.h"
#include "config/config_kind.h"
#include "config/setting_value.h"

#include <unistd.h>

static const char *const no_env[] = {NULL};

struct bench {
    char dir[64];
    char path[128];
    struct cv_problems problems;
    struct cv_relay_config *relay;
    struct cv_agent_config *agent;
    char said[65536];
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    (void)snprintf(b->dir, sizeof b->dir, "/tmp/culvert-config-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    (void)snprintf(b->path, sizeof b->path, "%s/c.yaml", b->dir);
    *state = b;
    return 0;
}

static void forget(struct bench *b)
{
    cv_problems_done(&b->problems);
    cv_relay_config_free(&b->relay);
    cv_agent_config_free(&b->agent);
}

static int teardown(void **state)
{
    struct bench *b = *state;
    forget(b);
    (void)unlink(b->path);
    (void)rmdir(b->dir);
    free(b);
    return 0;
}

static void write_bytes(struct bench *b, const void *bytes, size_t len)
{
    FILE *file = fopen(b->path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void say(struct bench *b)
{
    struct cv_buf out;
    cv_buf_init(&out, sizeof b->said - 1);
    assert_ok(cv_problems_print(&b->problems, &out));
    memcpy(b->said, cv_buf_len(&out) ? (const char *)cv_buf_head(&out) : "", cv_buf_len(&out));
    b->said[cv_buf_len(&out)] = '\0';
    cv_buf_done(&out);
}

static struct cv_status load_relay(struct bench *b, const char *yaml, const char *const *env,
                                   const struct cv_override *overrides, size_t count, bool is_dev)
{
    forget(b);
    if (yaml)
        write_bytes(b, yaml, strlen(yaml));
    struct cv_config_sources sources = {.path = yaml ? b->path : NULL,
                                        .env = env,
                                        .overrides = overrides,
                                        .override_count = count,
                                        .is_dev = is_dev};
    struct cv_status status = cv_relay_config_load(&sources, &b->relay, &b->problems);
    say(b);
    return status;
}

static struct cv_status dev(struct bench *b, const char *yaml)
{
    return load_relay(b, yaml, no_env, NULL, 0, true);
}

static struct cv_status load_agent(struct bench *b, const char *yaml,
                                   const struct cv_override *overrides, size_t count)
{
    forget(b);
    if (yaml)
        write_bytes(b, yaml, strlen(yaml));
    struct cv_config_sources sources = {.path = yaml ? b->path : NULL,
                                        .env = no_env,
                                        .overrides = overrides,
                                        .override_count = count};
    struct cv_status status = cv_agent_config_load(&sources, &b->agent, &b->problems);
    say(b);
    return status;
}

#define assert_said(b, text)                                                                       \
    do {                                                                                           \
        if (!strstr((b)->said, text))                                                              \
            print_error("said: %s\nmissing: %s\n", (b)->said, text);                               \
        assert_non_null(strstr((b)->said, text));                                                  \
    } while (0)

/* A setting refuses `text` in the file, and names it. */
static void refuses(struct bench *b, const char *yaml, const char *text)
{
    assert_status(dev(b, yaml), CV_CONFIG);
    assert_null(b->relay);
    assert_said(b, text);
}

static void defaults_are_what_the_design_says(void **state)
{
    struct bench *b = *state;
    assert_ok(dev(b, NULL));
    assert_int_equal(b->relay->listen.count, 1);
    assert_string_equal(b->relay->listen.items[0], "127.0.0.1:8080");
    assert_string_equal(b->relay->ws_path, "/tunnel");
    assert_int_equal(b->relay->ws_ping_interval_ms, 30000);
    assert_int_equal(b->relay->ws_pong_timeout_ms, 15000);
    assert_int_equal(b->relay->ws_max_frame_bytes, 1 << 20);
    assert_int_equal(b->relay->link_replay_bytes, 4 << 20);
    assert_int_equal(b->relay->limits_head_bytes, 16 << 10);
    assert_int_equal(b->relay->limits_body_bytes, 0);
    assert_int_equal(b->relay->ssh_max_channels, 10);
    assert_int_equal(b->relay->queue_size, 100);
    assert_int_equal(b->relay->shutdown_drain_ms, 30000);
    assert_null(b->relay->auth_issuer);
    assert_int_equal(b->relay->ssh_ciphers.count, 3);
    assert_ok(load_agent(b, NULL, NULL, 0));
    assert_int_equal(b->agent->shutdown_drain_ms, 10000);
    assert_int_equal(b->agent->tunnels.count, 0);
    assert_null(b->agent->server);
}

static void file_environment_and_flags_win_in_this_order(void **state)
{
    struct bench *b = *state;
    const char *yaml =
        "ws:\n  ping_interval: 1m\n  pong_timeout: 2s\nworkers: 2\nqueue:\n  size: 20\n";
    const char *const env[] = {"WS_PONG_TIMEOUT=5000", "CULVERT_WORKERS=3",
                               "SSH_MAX_CHANNELS=7",   "CULVERT_SSH_MAX_CHANNELS=8",
                               "LOG_LEVEL=",           NULL};
    const struct cv_override flags[] = {{"workers", "4", "--workers"}};
    assert_ok(load_relay(b, yaml, env, flags, 1, true));
    assert_int_equal(b->relay->ws_ping_interval_ms, 60000);
    assert_int_equal(b->relay->ws_pong_timeout_ms, 5000);
    assert_int_equal(b->relay->workers, 4);
    assert_int_equal(b->relay->queue_size, 20);
    assert_int_equal(b->relay->ssh_max_channels, 8);
    assert_string_equal(b->relay->log_level, "info");
    const struct cv_schema *s = &cv_relay_schema;
    assert_int_equal(cv_settings_origin(s, b->relay, "ws.ping_interval").kind, CV_ORIGIN_FILE);
    assert_int_equal(cv_settings_origin(s, b->relay, "ws.ping_interval").line, 2);
    assert_true(cv_settings_origin(s, b->relay, "ws.pong_timeout").is_established);
    assert_false(cv_settings_origin(s, b->relay, "ssh.max_channels").is_established);
    assert_int_equal(cv_settings_origin(s, b->relay, "workers").kind, CV_ORIGIN_FLAG);
    assert_int_equal(cv_settings_origin(s, b->relay, "log.level").kind, CV_ORIGIN_DEFAULT);
}

static void established_names_are_taken(void **state)
{
    struct bench *b = *state;
    const char *const env[] = {
        "PORT=9000",
        "HOST=::",
        "METRICS_PORT=9091",
        "WS_PATH=/ws",
        "WS_PING_INTERVAL=20000",
        "WS_MAX_FRAME_SIZE=2097152",
        "SSH_KEEPALIVE_INTERVAL=45000",
        "SSH_COMPRESSION=true",
        "SSH_KEX_ALGORITHMS=curve25519-sha256",
        "SSH_CIPHER_ALGORITHMS=AES256-GCM@openssh.com, aes128-gcm@openssh.com",
        "AUTH0_JWKS_URI=https://id.example.org/jwks",
        "AUTH0_ISSUER=https://id.example.org/",
        "AUTH0_AUDIENCE=a,b",
        "AUTH_TOKEN_CACHE_TTL=60000",
        "MAX_CONNECTIONS_PER_USER=5",
        "LOG_LEVEL=DEBUG",
        "LOG_FORMAT=json",
        "CULVERT_TRUSTED_PROXY=10.0.0.0/8",
        NULL};
    assert_ok(load_relay(b, NULL, env, NULL, 0, false));
    assert_string_equal(b->relay->listen.items[0], "[::]:9000");
    assert_string_equal(b->relay->metrics_listen, "0.0.0.0:9091");
    assert_string_equal(b->relay->ws_path, "/ws");
    assert_int_equal(b->relay->ws_ping_interval_ms, 20000);
    assert_int_equal(b->relay->ws_max_frame_bytes, 2097152);
    assert_int_equal(b->relay->ssh_keepalive_interval_ms, 45000);
    assert_true(b->relay->ssh_compression);
    assert_int_equal(b->relay->ssh_ciphers.count, 2);
    assert_string_equal(b->relay->ssh_ciphers.items[0], "aes256-gcm@openssh.com");
    assert_string_equal(b->relay->auth_audience.items[1], "b");
    assert_int_equal(b->relay->auth_cache_ttl_ms, 60000);
    assert_int_equal(b->relay->limits_max_links_per_user, 5);
    assert_string_equal(b->relay->log_level, "debug");
    const char *const bad[] = {"PORT=99999", NULL};
    assert_status(load_relay(b, NULL, bad, NULL, 0, true), CV_CONFIG);
    assert_said(b, "PORT: listen must be a port");
    const char *const bad_metrics[] = {"METRICS_PORT=x", NULL};
    assert_status(load_relay(b, NULL, bad_metrics, NULL, 0, true), CV_CONFIG);
    assert_said(b, "METRICS_PORT: metrics.listen must be a port");
    const char *const port[] = {"PORT=9001", NULL};
    assert_ok(load_relay(b, NULL, port, NULL, 0, true));
    assert_string_equal(b->relay->listen.items[0], "127.0.0.1:9001");
}

/* The tables themselves: defaults hold, limits bite at both ends, names are unique. */
static void check_schema(const struct cv_schema *schema)
{
    void *values = calloc(1, schema->size);
    assert_non_null(values);
    struct cv_problems problems;
    cv_problems_init(&problems);
    assert_ok(cv_settings_load_text(schema, values, cv_slice_str(""), "x", &problems));
    cv_problems_done(&problems);
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *s = &schema->settings[i];
        assert_true(s->help[0] && s->help[strlen(s->help) - 1] == '.');
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(s->key, schema->settings[k].key);
        if (s->kind == CV_KIND_RECORDS) {
            check_schema(s->record);
            continue;
        }
        if (!s->example[0])
            print_error("no example: %s\n", s->key);
        assert_true(s->example[0]);
        assert_ok(cv_setting_set_text(s, values, cv_slice_str(s->example), false));
        if (s->kind != CV_KIND_INT && s->kind != CV_KIND_DURATION && s->kind != CV_KIND_SIZE)
            continue;
        assert_true(s->min < s->max);
        const uint64_t edge[] = {s->min, s->max, s->min - 1, s->max + 1};
        for (unsigned k = 0; k < 4; k++) {
            if (k == 2 && s->min == 0)
                continue;
            char text[32];
            (void)snprintf(text, sizeof text, "%llu", (unsigned long long)edge[k]);
            assert_status(cv_setting_set_text(s, values, cv_slice_str(text), true),
                          k < 2 ? CV_OK : CV_CONFIG);
        }
        assert_status(cv_setting_set_text(s, values, cv_slice_str("-1"), true), CV_CONFIG);
        assert_status(cv_setting_set_text(s, values, cv_slice_str("x"), true), CV_CONFIG);
        assert_status(cv_setting_set_text(s, values, cv_slice_str("99999999999999999999"), true),
                      CV_CONFIG);
    }
    cv_settings_done(schema, values);
    free(values);
}

static void tables_are_sound(void **state)
{
    (void)state;
    check_schema(&cv_relay_schema);
    check_schema(&cv_agent_schema);
}

static void every_mistake_is_named_with_its_line(void **state)
{
    struct bench *b = *state;
    refuses(b,
            "# a comment\n"
            "ws:\n"
            "  ping_intervall: 30s\n"
            "  pong_timeout: 15\n"
            "workers: lots\n"
            "log: loud\n"
            "\n"
            "queue: {size: 5}\n"
            "trusted_proxy:\n"
            "  - 10.0.0.0/8\n"
            "  - 10.0.0.1/8\n"
            "listen: {a: 1}\n"
            "ssh:\n"
            "  max_channels: [1]\n"
            "workers: 3\n",
            "c.yaml:3: ws.ping_intervall is no setting; did you mean ws.ping_interval?");
    assert_said(b,
                "c.yaml:4: ws.pong_timeout is \"15\", but must be a duration with its unit (ms, s, "
                "m, h, d), 1s to 10m");
    assert_said(b, "c.yaml:5: workers is \"lots\", but must be a whole number, 0 to 256");
    assert_said(b, "c.yaml:6: log must be a mapping");
    assert_said(b, "c.yaml:8: queue.size is \"5\", but must be a whole number, 10 to 1000");
    assert_said(b, "c.yaml:11: trusted_proxy is \"10.0.0.1/8\", but must be a list of networks");
    assert_said(b, "c.yaml:12: listen is a mapping, but must be a list of addresses");
    assert_said(b, "c.yaml:14: ssh.max_channels is a list, but must be a whole number");
    assert_said(b, "c.yaml:15: workers is given twice, first in line 5");
    assert_int_equal(b->problems.count, 9);
    assert_int_equal(b->problems.items[0].line, 3);
    assert_string_equal(b->problems.items[1].key, "ws.pong_timeout");
    assert_string_equal(b->problems.items[1].value, "15");
}

static void yaml_that_has_no_place_here_is_refused(void **state)
{
    struct bench *b = *state;
    refuses(b, "workers: 1\n  bad\n- x: [\n", "c.yaml:3: ");
    refuses(b, "workers: 1\n\tqueue: 2\n", "c.yaml:2: ");
    refuses(b, "- a\n- b\n", "the file must be a mapping");
    refuses(b, "just text\n", "the file must be a mapping");
    refuses(b, "a: &x {b: 1}\nc: *x\n", "c.yaml:1: tags and anchors are not taken");
    refuses(b, "workers: *x\n", "c.yaml:1: aliases are not taken");
    refuses(b, "workers: !!int 3\n", "c.yaml:1: tags and anchors are not taken");
    refuses(b, "workers: 1\n---\nworkers: 2\n", "c.yaml:2: only one YAML document is taken");
    refuses(b, "? [a]\n: 1\n", "c.yaml:1: a key must be plain text");
    refuses(b, "a: [[[[[[[[[1]]]]]]]]]\n", "c.yaml:1: nested too deeply");
    refuses(b, "'': 1\n", "c.yaml:1: a key is empty");
    refuses(b, "log:\n  level: \"a\\0b\"\n", "NUL byte");
    refuses(b, "log:\n  level: ''\n", "log.level is \"\"");
    refuses(b, "ws:\n  ping_interval: ''\n", "ws.ping_interval is \"\"");
    refuses(b, "ws_path: \"/a\\e[2J\"\n", "ws_path is \"/a?[2J\"");
    write_bytes(b, "workers: \xff\xfe\n", 12);
    struct cv_config_sources sources = {.path = b->path, .env = no_env, .is_dev = true};
    forget(b);
    assert_status(cv_relay_config_load(&sources, &b->relay, &b->problems), CV_CONFIG);
}

static void an_empty_file_and_empty_keys_are_defaults(void **state)
{
    struct bench *b = *state;
    assert_ok(dev(b, ""));
    assert_ok(dev(b, "# nothing\n---\n...\n"));
    assert_ok(dev(b, "\xef\xbb\xbfworkers:\nlog:\n  level: ~\nws: null\n"));
    assert_int_equal(b->relay->workers, 0);
    assert_string_equal(b->relay->log_level, "info");
    assert_ok(dev(b, "listen: localhost:1234\r\ncors:\r\n  origins: [\"*\", 'https://a.b']\r\n"));
    assert_string_equal(b->relay->listen.items[0], "localhost:1234");
    assert_int_equal(b->relay->cors_origins.count, 2);
}

static void large_and_missing_files_are_refused(void **state)
{
    struct bench *b = *state;
    char *big = malloc(CV_CONFIG_FILE_MAX + 2);
    assert_non_null(big);
    memset(big, '#', CV_CONFIG_FILE_MAX + 1);
    big[CV_CONFIG_FILE_MAX + 1] = '\0';
    refuses(b, big, "larger than 1 MiB");
    big[CV_CONFIG_FILE_MAX] = '\0';
    assert_ok(dev(b, big));
    for (size_t i = 0; i + 3 < CV_CONFIG_FILE_MAX; i += 3)
        memcpy(big + i, "- a", 3);
    memcpy(big, "a: [", 4);
    for (size_t i = 4; i < 60000; i += 2)
        memcpy(big + i, "1,", 2);
    memcpy(big + 60000, "]", 2);
    refuses(b, big, "too many entries");
    free(big);
    struct cv_config_sources sources = {.path = "/nowhere/c.yaml", .env = no_env, .is_dev = true};
    forget(b);
    assert_status(cv_relay_config_load(&sources, &b->relay, &b->problems), CV_IO);
    assert_string_equal(b->problems.items[0].text, "cannot be read: No such file or directory");
    sources.path = "/";
    assert_status(cv_relay_config_load(&sources, &b->relay, &b->problems), CV_IO);
}

static void problems_are_capped(void **state)
{
    struct bench *b = *state;
    char yaml[4000] = "";
    size_t len = 0;
    for (int i = 0; i < 150; i++)
        len += (size_t)snprintf(yaml + len, sizeof yaml - len, "nonsense%d: 1\n", i);
    refuses(b, yaml, "and 50 more");
    assert_int_equal(b->problems.count, CV_CONFIG_PROBLEMS_MAX);
}

static void a_relay_for_real_needs_tls_and_keys(void **state)
{
    struct bench *b = *state;
    assert_status(load_relay(b, "workers: 1\n", no_env, NULL, 0, false), CV_CONFIG);
    assert_said(b, "tls.cert_file is missing");
    assert_said(b, "auth.jwks_url is missing");
    const char *yaml = "tls: {cert_file: c.pem}\nauth: {jwks_url: 'http://id.example.org/jwks'}\n"
                       "limits: {head_bytes: 1KiB}\n";
    assert_status(load_relay(b, yaml, no_env, NULL, 0, false), CV_CONFIG);
    assert_said(b, "tls.key_file is missing beside");
    assert_said(b, "auth.issuer is missing");
    assert_said(b, "auth.audience is missing");
    assert_said(b, "c.yaml:2: auth.jwks_url must be https");
    assert_said(b, "limits.line_bytes must not be larger");
    yaml = "tls: {cert_file: c.pem, key_file: k.pem}\nauth: {jwks_url: 'http://127.0.0.1:1/jwks',\n"
           "  issuer: me, audience: you}\n";
    assert_ok(load_relay(b, yaml, no_env, NULL, 0, false));
    yaml = "trusted_proxy: ::1\nauth: {jwks_file: j.json}\n";
    assert_status(load_relay(b, yaml, no_env, NULL, 0, false), CV_CONFIG);
    assert_said(b, "auth.issuer is missing");
    assert_said(b, "auth.audience is missing");
    yaml = "trusted_proxy: ::1\nauth: {secret_file: s, issuer: me, audience: you}\n";
    assert_ok(load_relay(b, yaml, no_env, NULL, 0, false));
    const struct cv_override flags[] = {{"listen", "0.0.0.0:80", "--listen"}};
    assert_status(load_relay(b, NULL, no_env, flags, 1, true), CV_CONFIG);
    assert_said(b, "--listen must be a loopback address with --dev");
    const struct cv_override wrong[] = {{"listen", "80", "--listen"}, {"nothing", "1", "--x"}};
    assert_status(load_relay(b, NULL, no_env, wrong, 2, true), CV_CONFIG);
    assert_said(b, "--listen is \"80\", but must be");
    assert_said(b, "--x: nothing is no setting");
}

static void agent_reads_its_tunnels(void **state)
{
    struct bench *b = *state;
    assert_ok(load_agent(b,
                         "server: wss://relay.example.org\n"
                         "tunnels:\n"
                         "  - name: home\n"
                         "    target: 11434\n"
                         "    timers:\n"
                         "      first_byte: 10m\n"
                         "    allow:\n"
                         "      - POST /api/chat\n"
                         "      - \"* /v1/*\"\n"
                         "  - {name: db, kind: tcp, target: '[::1]:5432', concurrency: 4}\n",
                         NULL, 0));
    assert_int_equal(b->agent->tunnels.count, 2);
    const struct cv_tunnel_config *home = cv_agent_config_tunnel(b->agent, 0);
    assert_string_equal(home->name, "home");
    assert_string_equal(home->kind, "http");
    assert_string_equal(home->preset, "auto");
    assert_int_equal(home->timers_first_byte_ms, 600000);
    assert_true(home->timers_idle_ms == CV_UNSET);
    assert_int_equal(home->allow.count, 2);
    const struct cv_tunnel_config *db = cv_agent_config_tunnel(b->agent, 1);
    assert_string_equal(db->kind, "tcp");
    assert_int_equal(db->concurrency, 4);
}

static void agent_names_what_is_wrong_in_tunnels(void **state)
{
    struct bench *b = *state;
    assert_status(load_agent(b,
                             "tunnels:\n"
                             "  - name: Home\n"
                             "    target: 80\n"
                             "  - name: a\n"
                             "  - name: a\n"
                             "    target: https://x\n"
                             "    allow: [GET]\n"
                             "    timers: {first_bite: 1s}\n"
                             "    host: 'a b'\n"
                             "  - just-text\n"
                             "reconnect: {initial: 10s, max: 1s}\n"
                             "host_key_fingerprint: MD5:abc\n"
                             "proxy: https://user:hunter2@x\n",
                             NULL, 0),
                  CV_CONFIG);
    assert_said(b, "c.yaml:2: tunnels[0].name is \"Home\", but must be 1 to 63 small letters");
    for (size_t i = 0; i < b->problems.count; i++) /* refused is not missing */
        assert_false(strcmp(b->problems.items[i].key, "tunnels[0].name") == 0 &&
                     strcmp(b->problems.items[i].text, "is missing") == 0);
    assert_said(b, "c.yaml:4: tunnels[1].target is missing");
    assert_said(b, "c.yaml:8: tunnels[2].timers.first_bite is no setting");
    assert_said(b, "c.yaml:10: tunnels is \"just-text\", but must be a list of mappings");
    assert_said(b, "tunnels[2].target is \"https://x\"");
    assert_said(b, "[2].allow has \"GET\", but a rule must be METHOD /path");
    assert_said(b, "[2].name is \"a\", which [1] already has");
    assert_said(b, "[2].host is \"a b\"");
    assert_said(b, "c.yaml:11: reconnect.initial must not be longer");
    assert_said(b, "c.yaml:12: host_key_fingerprint must be SHA256:");
    assert_said(b, "c.yaml:13: proxy must be a URL that begins with http://");
    assert_null(strstr(b->said, "hunter2"));
    for (size_t i = 0; i < b->problems.count; i++)
        assert_null(strstr(b->problems.items[i].value, "hunter2"));
}

static void flags_make_tunnels(void **state)
{
    struct bench *b = *state;
    const struct cv_override flags[] = {{"tunnels", "", "http"},
                                        {"tunnels[0].name", "home", "--name"},
                                        {"tunnels[0].target", "11434", "http"},
                                        {"tunnels[0].preset", "none", "--preset"}};
    assert_ok(load_agent(b, "tunnels: [{name: x, target: 1}, {name: y, target: 2}]\n", flags, 4));
    assert_int_equal(b->agent->tunnels.count, 1);
    assert_string_equal(cv_agent_config_tunnel(b->agent, 0)->target, "11434");
    assert_string_equal(cv_agent_config_tunnel(b->agent, 0)->preset, "none");
    assert_status(load_agent(b, NULL, flags, 2), CV_CONFIG);
    assert_said(b, "command line: tunnels[0].target is missing");
    static const char *const keys[] = {"tunnels[1].name", "tunnels[0].nome",      "tunnels[].name",
                                       "tunnels[x].name", "tunnels[999999].name", "server[0].name",
                                       "tunnels[0]"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct cv_override wrong = {keys[i], "a", "--x"};
        assert_status(load_agent(b, NULL, &wrong, 1), CV_CONFIG);
        assert_said(b, "is no setting");
    }
}

static void show_loads_again_and_masks_secrets(void **state)
{
    struct bench *b = *state;
    struct cv_buf first, second;
    cv_buf_init(&first, 65536);
    cv_buf_init(&second, 65536);
    assert_ok(
        load_agent(b,
                   "server: ws://[::1]:80/x\nproxy: http://u:hunter2@p:1\n"
                   "tunnels:\n  - {name: \"007\", target: '80', allow: ['* /\"a*'], host: off}\n"
                   "known_hosts_file: \"a: #b\\\\\"\n",
                   NULL, 0));
    assert_ok(cv_settings_show(&cv_agent_schema, b->agent, true, &first));
    assert_ok(cv_buf_append_byte(&first, '\0'));
    char *text = strdup((const char *)cv_buf_head(&first));
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "proxy: \"***\" # line 2\n"));
    assert_non_null(strstr(text, "ssh:\n  max_channels: 10 # default\n"));
    char *masked = strstr(text, "\"***\"");
    memcpy(masked, "~    ", 5);
    assert_ok(load_agent(b, text, NULL, 0));
    assert_string_equal(cv_agent_config_tunnel(b->agent, 0)->name, "007");
    assert_string_equal(cv_agent_config_tunnel(b->agent, 0)->host, "off");
    assert_string_equal(cv_agent_config_tunnel(b->agent, 0)->allow.items[0], "* /\"a*");
    assert_string_equal(b->agent->known_hosts_file, "a: #b\\");
    assert_true(cv_agent_config_tunnel(b->agent, 0)->timers_idle_ms == CV_UNSET);
    free(text);
    assert_ok(dev(b, "trusted_proxy: [\"::1\", 10.0.0.0/8]\n"));
    assert_ok(cv_settings_show(&cv_relay_schema, b->relay, false, &second));
    assert_ok(cv_buf_append_byte(&second, '\0'));
    text = strdup((const char *)cv_buf_head(&second));
    assert_ok(dev(b, text));
    assert_string_equal(b->relay->trusted_proxy.items[0], "::1");
    free(text);
    cv_buf_done(&first);
    cv_buf_done(&second);
}

static void a_file_tells_whose_it_is(void **state)
{
    struct bench *b = *state;
    static const struct {
        const char *yaml;
        const struct cv_schema *kind;
    } cases[] = {
        {"listen: 127.0.0.1:1\nlog: {level: debug}\n", &cv_relay_schema},
        {"server: wss://a\nlog: {level: loud}\n", &cv_agent_schema},
        {"tunnels: [{name: a, target: 1}]\n", &cv_agent_schema},
        {"log: {level: debug}\n", &cv_relay_schema},
        {"[", &cv_relay_schema},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(b, cases[i].yaml, strlen(cases[i].yaml));
        assert_string_equal(cv_config_kind(b->path)->name, cases[i].kind->name);
    }
    assert_string_equal(cv_config_kind("/nowhere")->name, "relay");
}

static void environment_names_are_unique(void **state)
{
    (void)state;
    static const struct cv_schema *const schemas[] = {&cv_relay_schema, &cv_agent_schema};
    for (size_t s = 0; s < 2; s++) {
        for (size_t i = 0; i < schemas[s]->count; i++) {
            char a[96], b[96];
            cv_settings_env_name(&schemas[s]->settings[i], a);
            for (size_t k = 0; k < i; k++) {
                cv_settings_env_name(&schemas[s]->settings[k], b);
                assert_string_not_equal(a, b);
                if (schemas[s]->settings[i].env && schemas[s]->settings[k].env)
                    assert_string_not_equal(schemas[s]->settings[i].env,
                                            schemas[s]->settings[k].env);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_what_the_design_says, setup, teardown),
        cmocka_unit_test_setup_teardown(file_environment_and_flags_win_in_this_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(established_names_are_taken, setup, teardown),
        cmocka_unit_test(tables_are_sound),
        cmocka_unit_test_setup_teardown(every_mistake_is_named_with_its_line, setup, teardown),
        cmocka_unit_test_setup_teardown(yaml_that_has_no_place_here_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_file_and_empty_keys_are_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(large_and_missing_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(problems_are_capped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_relay_for_real_needs_tls_and_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(agent_reads_its_tunnels, setup, teardown),
        cmocka_unit_test_setup_teardown(agent_names_what_is_wrong_in_tunnels, setup, teardown),
        cmocka_unit_test_setup_teardown(flags_make_tunnels, setup, teardown),
        cmocka_unit_test_setup_teardown(show_loads_again_and_masks_secrets, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_tells_whose_it_is, setup, teardown),
        cmocka_unit_test(environment_names_are_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
