/* SPDX-License-Identifier: MIT
 *
 * What the programs beside a service can be told (`agent`, `http`, `tcp`, `forward`, `stdio`), and
 * the one list of it. Immutable after loading, owned by the caller; any thread may read it.
 */
#ifndef CV_CONFIG_AGENT_CONFIG_H
#define CV_CONFIG_AGENT_CONFIG_H

#include "config/relay_config.h"

/* X(field, "key", KIND, "default", CHECK, "ENV" or NULL, flags, "help", "example") */
/* clang-format off */
#define CV_TUNNEL_SETTINGS(X)                                                                      \
    X(name, "name", TUNNEL_NAME, "", CV_ANY, NULL, CV_SETTING_REQUIRED,                            \
      "Name under which the tunnel is published: small letters, digits, inner hyphens, at "        \
      "most 63.",                                                                                  \
      "home")                                                                                      \
    X(kind, "kind", ENUM, "http", CV_CHOICES("http|tcp"), NULL, 0,                                 \
      "HTTP through the relay's HTTP engine, or bytes as they are.", "http")                       \
    X(target, "target", STRING, "", CV_ANY, NULL, CV_SETTING_REQUIRED,                             \
      "Where the service is: a port on this machine, HOST:PORT, or http://HOST[:PORT].",           \
      "127.0.0.1:11434")                                                                           \
    X(preset, "preset", ENUM, "auto", CV_CHOICES("auto|ollama|openai|none"), NULL, 0,              \
      "Headers, timers and rules that fit the service; auto takes ollama when the port is 11434.", \
      "openai")                                                                                    \
    X(host, "host", STRING, "", CV_ANY, NULL, 0,                                                   \
      "Host header that the service gets; without it the preset's, else the target's.",            \
      "localhost:11434")                                                                           \
    X(allow, "allow", LIST, "", CV_ANY, NULL, 0,                                                   \
      "Rules `METHOD /path`, `*` at the end of the path and as method being any. Given, "          \
      "only these "                                                                                \
      "requests pass; without, the preset's.", "POST /api/chat")                                   \
    X(timers_first_byte_ms, "timers.first_byte", DURATION, "", CV_RANGE(0, 1 * CV_DAYS), NULL, 0,  \
      "The service must begin to answer in this time; 0 waits for ever. Without it the preset's, " \
      "else the relay's.", "10m")                                                                  \
    X(timers_idle_ms, "timers.idle", DURATION, "", CV_RANGE(0, 1 * CV_DAYS), NULL, 0,              \
      "An answer that stops for this long is cut; 0 never. Without it the preset's, else the "     \
      "relay's.", "5m")                                                                            \
    X(timers_total_ms, "timers.total", DURATION, "", CV_RANGE(0, 7 * CV_DAYS), NULL, 0,            \
      "A request may take this long altogether; 0 has no limit. Without it the relay's.", "30m")   \
    X(concurrency, "concurrency", INT, "0", CV_RANGE(0, 1000), NULL, 0,                            \
      "Requests that the service gets at once over all links, others wait; 0 sets no limit of its " \
      "own.", "4")                                                                                 \
    X(canary, "canary", STRING, "auto", CV_ANY, NULL, 0,                                           \
      "What the relay asks the service for when nobody else has for a while, to know whether it "  \
      "is up: a path, auto (the preset's, else HEAD /), connect (only a connection), off.",        \
      "/healthz")                                                                                  \
    X(share, "share", LIST, "", CV_ANY, NULL, 0,                                                   \
      "Who else may use the tunnel, at /t/OWNER~NAME/: subjects as their tokens have them, and "   \
      "`group:NAME` for whoever's token is in that group. At most 64; without it, nobody.",        \
      "bob")                                                                                       \
    X(is_public, "public", BOOL, "false", CV_ANY, NULL, 0,                                         \
      "Anybody may use it there, without a token, where the relay permits that.", "true")          \
    X(authorization, "authorization", ENUM, "pass", CV_CHOICES("pass|drop"), NULL, 0,              \
      "pass: the service gets the consumer's Authorization where the relay's token came in "       \
      "Culvert-Authorization instead. drop: it never does.", "drop")

#define CV_SERVER_SETTINGS(X)                                                                      \
    X(url, "url", URL, "", CV_CHOICES("wss|ws|https|http"), NULL, CV_SETTING_REQUIRED,             \
      "The relay, as `server` has it.", "wss://one.example.org")                                   \
    X(priority, "priority", INT, "0", CV_RANGE(0, 1000), NULL, 0,                                  \
      "Relays with a lower number are used as long as one of them can be reached.", "1")           \
    X(weight, "weight", INT, "1", CV_RANGE(1, 100), NULL, 0,                                       \
      "Among relays of the same priority: this one is chosen so many times as often as one "       \
      "with 1.", "10")                                                                             \
    X(token_command, "token_command", STRING, "", CV_ANY, NULL, 0,                                 \
      "A line for /bin/sh that prints the token, run again when the relay says that the token "    \
      "will expire, or has refused it. CULVERT_TOKEN and token_file go before it.",                \
      "vault read -field=token culvert/agent")                                                     \
    X(ca_file, "ca_file", PATH, "", CV_ANY, NULL, 0,                                               \
      "Authorities that this relay's certificate may come from, instead of those of `ca_file` "    \
      "beside the list.",                                                                          \
      "/etc/culvert/one.pem")                                                                      \
    X(host_key_fingerprint, "host_key_fingerprint", STRING, "", CV_ANY, NULL, 0,                   \
      "This relay's host key, instead of `host_key_fingerprint` beside the list.",                 \
      "SHA256:uNiVztksCsDhcc0u9e8BrrQHVUpHtfrVPx0SxjbnHmA")

#define CV_AGENT_SETTINGS(X)                                                                       \
    X(server, "server", URL, "", CV_CHOICES("wss|ws|https|http"), NULL, 0,                         \
      "The relay. ws:// and http:// are for relays on this machine. The path is /tunnel unless "   \
      "the URL has one.", "wss://relay.example.org")                                               \
    X(servers, "servers", RECORDS, "", .record = &cv_server_schema, NULL, 0,                       \
      "Several relays instead of one `server`: when the one in use fails or stops, the agent "     \
      "goes to the next. A `server` from a flag or the environment stands instead of the list.",   \
      "")                                                                                          \
    X(token_file, "token_file", PATH, "", CV_ANY, NULL, 0,                                         \
      "File with the token, read again when it changes. CULVERT_TOKEN goes before it.",            \
      "/run/secrets/culvert-token")                                                                \
    X(token_command, "token_command", STRING, "", CV_ANY, NULL, 0,                                 \
      "A line for /bin/sh that prints the token, run again when the relay says that the token "    \
      "will expire, or has refused it. CULVERT_TOKEN and token_file go before it.",                \
      "vault read -field=token culvert/agent")                                                     \
    X(ca_file, "ca_file", PATH, "", CV_ANY, NULL, 0,                                               \
      "Authorities in PEM that the relay's certificate may come from, instead of the system's.",   \
      "/etc/culvert/ca.pem")                                                                       \
    X(known_hosts_file, "known_hosts_file", PATH, "", CV_ANY, NULL, 0,                             \
      "Where relays' host keys are remembered; without it known_hosts in the state folder.",       \
      "/var/lib/culvert/known_hosts")                                                              \
    X(host_key_fingerprint, "host_key_fingerprint", STRING, "", CV_ANY, NULL, 0,                   \
      "The relay must have the host key with this fingerprint, as `ssh-keygen -l` prints it.",     \
      "SHA256:uNiVztksCsDhcc0u9e8BrrQHVUpHtfrVPx0SxjbnHmA")                                        \
    X(proxy, "proxy", URL, "", CV_CHOICES("http"), NULL, CV_SETTING_SECRET,                        \
      "HTTP proxy to go through, user and password in it if needed. Without it HTTPS_PROXY, "      \
      "HTTP_PROXY and NO_PROXY hold; addresses of this machine never go through one.",             \
      "http://proxy.example.org:3128")                                                             \
    X(tunnels, "tunnels", RECORDS, "", .record = &cv_tunnel_schema, NULL, 0,                       \
      "What is published.", "")                                                                    \
    X(metrics_listen, "metrics.listen", HOSTPORT, "", CV_ANY, NULL, 0,                             \
      "A loopback address on which `GET /metrics` tells this agent's numbers; none unless set. "   \
      "With port 0 a free one is taken and logged, for several agents on one machine.",            \
      "127.0.0.1:9091")                                                                            \
    X(state_dir, "state_dir", PATH, "", CV_ANY, NULL, 0,                                           \
      "Folder for keys and sockets; without it $XDG_STATE_HOME/culvert, else "                     \
      "~/.local/state/culvert.", "/var/lib/culvert")                                               \
    X(ssh_max_channels, "ssh.max_channels", INT, "10", CV_RANGE(1, 1000), "SSH_MAX_CHANNELS", 0,   \
      "Streams that may be open at once on a link.", "50")                                         \
    X(ssh_keepalive_interval_ms, "ssh.keepalive_interval", DURATION, "60s",                        \
      CV_RANGE(0, 1 * CV_HOURS), "SSH_KEEPALIVE_INTERVAL", CV_SETTING_TOLD | CV_SETTING_NEXT,                                      \
      "A keep-alive is sent after this much silence; 0 sends none.", "30s")                        \
    X(ssh_rekey_bytes, "ssh.rekey_bytes", SIZE, "1GiB", CV_RANGE(16 * CV_KIB, 64 * CV_GIB), NULL,  \
      CV_SETTING_TOLD | CV_SETTING_NEXT,                                                                                           \
      "Keys are exchanged anew after so many bytes.", "4GiB")                                      \
    X(ssh_rekey_interval_ms, "ssh.rekey_interval", DURATION, "1h",                                 \
      CV_RANGE(10 * CV_SECONDS, 7 * CV_DAYS), NULL, CV_SETTING_TOLD | CV_SETTING_NEXT, "Keys are exchanged anew after this time.", \
      "4h")                                                                                        \
    X(ssh_compression, "ssh.compression", BOOL, "false", CV_ANY, "SSH_COMPRESSION", CV_SETTING_TOLD | CV_SETTING_NEXT,             \
      "Offer zlib@openssh.com. Costs more CPU than it saves on most networks.", "true")            \
    X(ssh_ciphers, "ssh.ciphers", LIST,                                                            \
      "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",               \
      CV_CHOICES(CV_SSH_CIPHERS), "SSH_CIPHER_ALGORITHMS", 0, "Ciphers to offer, best first.",     \
      "aes256-gcm@openssh.com")                                                                    \
    X(ssh_kex, "ssh.kex", LIST, "curve25519-sha256,curve25519-sha256@libssh.org",                  \
      CV_CHOICES(CV_SSH_KEX), "SSH_KEX_ALGORITHMS", 0,                                             \
      "Key exchange methods; both names mean the same one.",                                                \
      "curve25519-sha256")                                                                         \
    X(ssh_window_bytes, "ssh.window", SIZE, "2MiB", CV_RANGE(32 * CV_KIB, 64 * CV_MIB), NULL, 0,   \
      "Receive window of a stream: what may wait for a slow service.", "4MiB")                     \
    X(ssh_window_max_bytes, "ssh.window_max", SIZE, "16MiB", CV_RANGE(32 * CV_KIB, 64 * CV_MIB), NULL, 0, \
      "As far as the window of a stream grows that is read as fast as a long path needs it; not"   \
      " above ssh.window: it never grows.", "32MiB")                                               \
    X(ssh_handshake_timeout_ms, "ssh.handshake_timeout", DURATION, "20s",                          \
      CV_RANGE(1 * CV_SECONDS, 2 * CV_MINUTES), NULL, CV_SETTING_TOLD | CV_SETTING_NEXT,                                           \
      "The key exchange and login must be done in this time.", "10s")                              \
    X(ws_ping_interval_ms, "ws.ping_interval", DURATION, "30s",                                    \
      CV_RANGE(1 * CV_SECONDS, 10 * CV_MINUTES), NULL, CV_SETTING_TOLD | CV_SETTING_NEXT,                                          \
      "A ping is sent after this much silence.", "15s")                                            \
    X(ws_pong_timeout_ms, "ws.pong_timeout", DURATION, "15s",                                      \
      CV_RANGE(1 * CV_SECONDS, 10 * CV_MINUTES), NULL, CV_SETTING_TOLD | CV_SETTING_NEXT,                                          \
      "A link that stays silent this long after a ping is dead.", "5s")                            \
    X(ws_max_frame_bytes, "ws.max_frame_size", SIZE, "1MiB", CV_RANGE(64 * CV_KIB, 64 * CV_MIB),   \
      NULL, 0, "Larger frames are refused with close code 1009.", "256KiB")                        \
    X(links, "links", INT, "1", CV_RANGE(1, 16), NULL, 0,                                          \
      "Links to the relay at once. With more than one, tunnels are on each of them, requests take" \
      " the least busy one, and a link that is lost is not noticed.",                              \
      "2")                                                                                         \
    X(link_replay_bytes, "link.replay_bytes", SIZE, "4MiB", CV_RANGE(256 * CV_KIB, 64 * CV_MIB),   \
      NULL, CV_SETTING_TOLD | CV_SETTING_NEXT, "What is kept of a link until the other side has acknowledged it.", "8MiB")         \
    X(link_replay_max_bytes, "link.replay_max", SIZE, "16MiB", CV_RANGE(256 * CV_KIB, 64 * CV_MIB), NULL, 0, \
      "As far as that grows on a path on which more is under way.", "32MiB")                       \
    X(link_growth_bytes, "link.growth_bytes", SIZE, "64MiB", CV_RANGE(0, 64 * CV_GIB), NULL, 0,    \
      "How much the windows and replay buffers of all links to a relay may grow, together, beyond" \
      " ssh.window and link.replay_bytes.", "256MiB")                                              \
    X(link_resume_window_ms, "link.resume_window", DURATION, "60s", CV_RANGE(0, 1 * CV_HOURS),     \
      NULL, CV_SETTING_TOLD | CV_SETTING_NEXT,                                                                                     \
      "A link whose connection was lost is kept so long, with the connections to services on it;"  \
      " 0 gives it up at once.",                                                                   \
      "5m")                                                                                        \
    X(connect_relay_timeout_ms, "connect.relay_timeout", DURATION, "10s",                          \
      CV_RANGE(100, 5 * CV_MINUTES), NULL, CV_SETTING_TOLD,                                                      \
      "Reaching the relay, TLS and upgrade included, must be done in this time.", "5s")            \
    X(connect_service_timeout_ms, "connect.service_timeout", DURATION, "5s",                       \
      CV_RANGE(100, 5 * CV_MINUTES), NULL, CV_SETTING_TOLD,                                                      \
      "Connecting to the local service must be done in this time.", "2s")                          \
    X(reconnect_initial_ms, "reconnect.initial", DURATION, "250ms", CV_RANGE(10, 1 * CV_MINUTES),  \
      NULL, CV_SETTING_TOLD, "Longest wait after the first failed try; it doubles with each.", "1s")             \
    X(reconnect_max_ms, "reconnect.max", DURATION, "60s", CV_RANGE(100, 1 * CV_HOURS), NULL, CV_SETTING_TOLD,    \
      "Longest wait between tries in the long run; it is 500ms in the first minute and 4s in the " \
      "ten after it.", "30s")                                                                      \
    X(reconnect_max_attempts, "reconnect.max_attempts", INT, "0", CV_RANGE(0, 1000000), NULL, CV_SETTING_TOLD,   \
      "After so many failed tries in a row `culvert http`, `tcp` and `forward` give up, and "       \
      "`culvert agent` rests until `culvert reconnect`, a change of the network or a restart; 0 "  \
      "goes on.", "10")                                                                            \
    X(reconnect_return_after_ms, "reconnect.return_after", DURATION, "60s",                        \
      CV_RANGE(0, 1 * CV_DAYS), NULL, CV_SETTING_TOLD,                                                           \
      "A relay of `servers` that is preferred and was away must hold a link for so long before "   \
      "the link to another one ends.",                                                             \
      "5m")                                                                                        \
    X(shutdown_drain_ms, "shutdown.drain", DURATION, "10s", CV_RANGE(0, 1 * CV_HOURS), NULL, CV_SETTING_TOLD,    \
      "How long requests under way may take to end once the agent is told to stop.", "30s")        \
    X(forward_kind, "forward.kind", ENUM, "auto", CV_CHOICES("auto|http|tcp"), NULL, 0,            \
      "What the tunnel of `culvert forward` carries; auto asks the relay. Over HTTP requests are " \
      "queued, over TCP connections are carried as they come.", "http")                            \
    X(forward_queue_size, "forward.queue_size", INT, "100", CV_RANGE(10, 1000), NULL, 0,           \
      "HTTP requests of `culvert forward` that wait for the link or a stream; more are answered "  \
      "503 TUNNEL_006, the least urgent first.", "500")                                            \
    X(forward_wait_ms, "forward.wait", DURATION, "30s", CV_RANGE(100, 1 * CV_HOURS), NULL, 0,      \
      "For so long they wait (504 then), and TCP connections do (they are cut).", "5m")            \
    CV_TRACING_SETTINGS(X)                                                                         \
    X(log_level, "log.level", ENUM, "info", CV_CHOICES("error|warn|info|debug|trace"),             \
      "LOG_LEVEL",                                                                                 \
      CV_SETTING_TOLD, "What is logged; SIGUSR1 raises it and SIGUSR2 lowers it by one.", "debug") \
    X(log_file, "log.file", PATH, "", CV_ANY, NULL, 0,                                             \
      "The log goes there instead of stderr. A file that was renamed is noticed within a second, " \
      "at once on SIGHUP.",                                                                        \
      "/var/log/culvert.jsonl")                                                                    \
    X(log_max_bytes, "log.max_size", SIZE, "64MiB", CV_RANGE(0, 1 * CV_TIB), NULL, 0,              \
      "A larger file is renamed, to .1, what was .1 to .2 and so on; 0 never.", "10MiB")           \
    X(log_keep, "log.keep", INT, "5", CV_RANGE(1, 1000), NULL, 0,                                  \
      "Renamed files that are kept.", "20")                                                        \
    X(log_format, "log.format", ENUM, "auto", CV_CHOICES("auto|json|text"), "LOG_FORMAT", 0,       \
      "One JSON object a line, or text; auto is text on a terminal.", "json")
/* clang-format on */

/* Timers are CV_UNSET where neither this tunnel nor its defaults say anything. */
struct cv_tunnel_config {
    CV_TUNNEL_SETTINGS(CV_SETTING_FIELD)
};

struct cv_server_config {
    CV_SERVER_SETTINGS(CV_SETTING_FIELD)
};

struct cv_agent_config {
    CV_AGENT_SETTINGS(CV_SETTING_FIELD)
    struct cv_origin origins[0 CV_AGENT_SETTINGS(CV_SETTING_COUNT)];
};

extern const struct cv_schema cv_tunnel_schema;
extern const struct cv_schema cv_server_schema;
extern const struct cv_schema cv_agent_schema;

static inline const struct cv_tunnel_config *
cv_agent_config_tunnel(const struct cv_agent_config *config, size_t index)
{
    return (const struct cv_tunnel_config *)config->tunnels.items + index;
}

/* How many relays there are: those of `servers`, or the one of `server` where that is set; at least
 * 1, also when neither is. */
size_t cv_agent_config_server_count(const struct cv_agent_config *config);

/* One of them, with what stands beside the list where it says nothing itself. Its url is NULL when
 * none is set. The strings are the configuration's. */
struct cv_server_config cv_agent_config_server(const struct cv_agent_config *config, size_t index);

/* Loads as cv_settings_load does, and checks what spans settings: tunnel names are unique, targets
 * and rules can be read, reconnect.initial is at most reconnect.max, fingerprints have the form
 * SHA256:<43 characters>, a file has either `server` or `servers`. A server is not demanded, since
 * a flag may come later in the caller's logic. On any problem *config is NULL and `problems` says
 * all of them; CV_CONFIG, CV_IO or CV_NO_MEMORY. */
struct cv_status cv_agent_config_load(const struct cv_config_sources *sources,
                                      struct cv_agent_config **config,
                                      struct cv_problems *problems);
void cv_agent_config_free(struct cv_agent_config **config);

enum cv_change {
    CV_CHANGE_NOW,
    CV_CHANGE_NEXT_LINK,
    CV_CHANGE_RESTART,    /* nothing was done: it takes a restart */
    CV_CHANGE_OVERRIDDEN, /* nothing was done: a flag or the environment sets it */
};

/* Changes settings of a configuration that is in use, on the one thread that uses it: `changes`
 * are keys and values as files have them, `when` (of `count`) says what came of each. Either all
 * that can be changed are, or, when one of them is wrong, none: CV_CONFIG with the reason,
 * CV_NO_MEMORY. Strings that others may hold are never touched. */
struct cv_status cv_agent_config_change(struct cv_agent_config *config,
                                        const struct cv_override *changes, size_t count,
                                        enum cv_change *when, struct cv_error *error);

/* Reads a target: "11434", ":11434", "HOST:PORT", "http://HOST[:PORT][/]" (port 80 by default). A
 * bare port means 127.0.0.1. False for anything else, https:// included, and for port 0. */
struct cv_hostport;
bool cv_target_parse(struct cv_slice text, struct cv_hostport *out);

/* Reads a rule "METHOD /path": an RFC 9110 token or "*", one space, a path that begins with '/' and
 * may end in '*'. Slices point into `text`. */
bool cv_rule_parse(struct cv_slice text, struct cv_slice *method, struct cv_slice *path);

#endif
