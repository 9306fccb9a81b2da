/* SPDX-License-Identifier: MIT
 *
 * What `culvert server` can be told, and the one list of it. A row here is all a new setting needs:
 * field, default, check, environment name, `config show` and docs/configuration.md follow.
 * Immutable after loading, owned by the caller; any thread may read it.
 */
#ifndef CV_CONFIG_RELAY_CONFIG_H
#define CV_CONFIG_RELAY_CONFIG_H

#include "config/settings.h"

/* How `CHECK` columns are written; see struct cv_setting. */
#define CV_ANY .choices = NULL
#define CV_RANGE(low, high) .min = (low), .max = (high)
#define CV_CHOICES(list) .choices = (list)

#define CV_KIB 1024ull
#define CV_MIB (1024 * CV_KIB)
#define CV_GIB (1024 * CV_MIB)
#define CV_TIB (1024 * CV_GIB)
#define CV_SECONDS 1000ull
#define CV_MINUTES (60 * CV_SECONDS)
#define CV_HOURS (60 * CV_MINUTES)
#define CV_DAYS (24 * CV_HOURS)
#define CV_RPM_MAX 100000000ull

#define CV_SSH_CIPHERS "aes256-gcm@openssh.com|aes128-gcm@openssh.com|chacha20-poly1305@openssh.com"
#define CV_SSH_KEX "curve25519-sha256|curve25519-sha256@libssh.org"
#define CV_JWS_ALGORITHMS "RS256|RS384|RS512|PS256|ES256|ES384|HS256"

#define CV_SAMPLERS                                                                                \
    "always_on|always_off|traceidratio|parentbased_always_on|parentbased_always_off|"              \
    "parentbased_traceidratio"

/* X(field, "key", KIND, "default", CHECK, "ENV" or NULL, flags, "help", "example") */
/* clang-format off */
#define CV_TIER_SETTINGS(X)                                                                        \
    X(name, "name", STRING, "", CV_ANY, NULL, CV_SETTING_REQUIRED,                                 \
      "As tokens name it: a-z, 0-9, _ and -, at most 31 characters.", "team")                      \
    X(rpm, "requests_per_minute", INT, "100", CV_RANGE(0, CV_RPM_MAX), NULL, 0,                    \
      "Requests a minute of one user; 0 has no limit. Upgrades are counted apart.", "1000")        \
    X(burst, "burst", INT, "0", CV_RANGE(0, CV_RPM_MAX), NULL, 0,                                  \
      "Of them, so many at once; 0: a minute's worth.", "50")                                      \
    X(links, "links", INT, "3", CV_RANGE(1, 10000), NULL, 0, "Links at once of one user.", "10")   \
    X(bandwidth, "bandwidth", SIZE, "0", CV_RANGE(0, 1024 * CV_GIB), NULL, 0,                      \
      "Bytes a second of one user's requests and answers together, beyond `ssh.window` in each "    \
      "answer; 0 has no limit. Over it less is read of what is sent, nothing is refused.", "1MiB")
/* Spans: the same for relay and agent. */
#define CV_TRACING_SETTINGS(X)                                                                     \
    X(tracing_enabled, "tracing.enabled", BOOL, "false", CV_ANY, "TRACING_ENABLED", 0,             \
      "Send spans to an OpenTelemetry collector (docs/tracing.md). Without it they are sent when " \
      "there is an endpoint, here or in OTEL_EXPORTER_OTLP_ENDPOINT.", "true")                     \
    X(tracing_endpoint, "tracing.endpoint", URL, "", CV_CHOICES("https|http"), "TRACING_ENDPOINT", \
      0, "The collector's OTLP address over HTTP; /v1/traces unless it has a path. Without it "    \
      "what OTEL_EXPORTER_OTLP_ENDPOINT says, else http://localhost:4318.",                        \
      "http://collector.example.org:4318")                                                         \
    X(tracing_protocol, "tracing.protocol", ENUM, "", CV_CHOICES("http/json|http/protobuf"), NULL, \
      0, "In which form; without it what OTEL_EXPORTER_OTLP_PROTOCOL says, else http/json.",       \
      "http/protobuf")                                                                             \
    X(tracing_sampler, "tracing.sampler", ENUM, "", CV_CHOICES(CV_SAMPLERS), NULL, 0,              \
      "Which traces are sent; without it what OTEL_TRACES_SAMPLER says, else "                     \
      "parentbased_always_on.", "parentbased_traceidratio")                                        \
    X(tracing_sampler_arg, "tracing.sampler_arg", STRING, "", CV_ANY, NULL, 0,                     \
      "How many of them, 0 to 1, for the samplers with traceidratio.", "0.1")
#define CV_RELAY_SETTINGS(X)                                                                       \
    X(listen, "listen", LIST_HOSTPORT, "127.0.0.1:8080", CV_ANY, NULL, 0,                          \
      "Addresses to accept agents and consumers on. PORT and HOST in the environment make one "    \
      "address.", "0.0.0.0:8443")                                                                  \
    X(ws_path, "ws_path", URLPATH, "/tunnel", CV_ANY, "WS_PATH", 0,                                \
      "Path of the WebSocket upgrade of agents.", "/tunnel")                                       \
    X(public_host, "public_host", HOSTNAME, "", CV_ANY, NULL, 0,                                   \
      "With it a tunnel is also reached as `<tunnel>.<public_host>`.", "tunnel.example.org")       \
    X(trusted_proxy, "trusted_proxy", LIST_CIDR, "", CV_ANY, NULL, 0,                              \
      "Networks of the load balancers in front. Only from there are forwarding headers believed "  \
      "and connections without TLS taken.", "10.0.0.0/8")                                          \
    X(trusted_header, "trusted_header", ENUM, "x-forwarded-for",                                   \
      CV_CHOICES("x-forwarded-for|forwarded|none"), NULL, 0,                                       \
      "The header in which those load balancers say who asks. It must be one that they set or "    \
      "extend themselves: another would be the client's own word.", "forwarded")                   \
    X(proxy_protocol, "proxy_protocol", BOOL, "false", CV_ANY, NULL, 0,                            \
      "Connections from trusted_proxy begin with a header of the PROXY protocol (1 or 2), which "  \
      "says who asks; without it they are closed.", "true")                                        \
    X(workers, "workers", INT, "0", CV_RANGE(0, 256), NULL, 0,                                     \
      "Threads that serve connections; 0 takes one per CPU.", "4")                                 \
    X(state_dir, "state_dir", PATH, "", CV_ANY, NULL, 0,                                           \
      "Folder for keys; without it $XDG_STATE_HOME/culvert, else ~/.local/state/culvert.",         \
      "/var/lib/culvert")                                                                          \
    X(tls_cert_file, "tls.cert_file", PATH, "", CV_ANY, NULL, CV_SETTING_REREAD,                   \
      "Certificate chain in PEM, the server's own first. The file is read again on SIGHUP.",       \
      "/etc/culvert/cert.pem")                                                                     \
    X(tls_key_file, "tls.key_file", PATH, "", CV_ANY, NULL, CV_SETTING_REREAD,                     \
      "Private key of the certificate in PEM. The file is read again on SIGHUP.",                  \
      "/etc/culvert/key.pem")                                                                      \
    X(metrics_listen, "metrics.listen", HOSTPORT, "", CV_ANY, NULL, 0,                             \
      "A listener of its own for liveness and metrics, without a token; there is none "            \
      "unless set. METRICS_PORT in the environment makes it that port of all addresses.",          \
      "127.0.0.1:9090")                                                                            \
    X(metrics_enabled, "metrics.enabled", BOOL, "true", CV_ANY, "METRICS_ENABLED", 0,              \
      "Count what happens, for `/metrics` and the management API.", "false")                       \
    X(metrics_max_series, "metrics.max_series", INT, "5000", CV_RANGE(0, 1000000), NULL, 0,        \
      "Series on that page at most; further tiers are counted together as `other`. 0 has no limit.", \
      "2000")                                                                                      \
    X(metrics_models, "metrics.models", BOOL, "true", CV_ANY, NULL, 0,                             \
      "Read token counts and times from streamed answers of OpenAI-compatible servers and Ollama.", \
      "false")                                                                                     \
    X(auth_jwks_url, "auth.jwks_url", URL, "", CV_CHOICES("https|http"), "AUTH0_JWKS_URI", 0,      \
      "Where the identity provider publishes the keys that sign tokens.",                          \
      "https://login.example.org/.well-known/jwks.json")                                           \
    X(auth_jwks_file, "auth.jwks_file", PATH, "", CV_ANY, NULL, CV_SETTING_REREAD,                 \
      "Keys in a local JWKS file, for tokens made by `culvert token --key`. The file is read "     \
      "again on SIGHUP.",                                                                          \
      "/etc/culvert/jwks.json")                                                                    \
    X(auth_secret_file, "auth.secret_file", PATH, "", CV_ANY, NULL, CV_SETTING_REREAD,             \
      "File with the shared secret of HS256 tokens, at least 32 bytes. HS256 is refused without. " \
      "The file is read again on SIGHUP.",                                                         \
      "/etc/culvert/jwt-secret")                                                                   \
    X(auth_issuer, "auth.issuer", STRING, "", CV_ANY, "AUTH0_ISSUER", 0,                           \
      "The `iss` that tokens must have, byte by byte. Must be given, except with --dev.",          \
      "https://login.example.org/")                                                                \
    X(auth_audience, "auth.audience", LIST, "", CV_ANY, "AUTH0_AUDIENCE", 0,                       \
      "The `aud` values that are taken; a token must have one of them. Must be given, except "     \
      "with --dev.",                                                                               \
      "https://relay.example.org")                                                                 \
    X(auth_algorithms, "auth.algorithms", LIST, "RS256,RS384,RS512,PS256,ES256,ES384,HS256",       \
      CV_CHOICES(CV_JWS_ALGORITHMS), NULL, 0,                                                      \
      "Signature algorithms that are taken. HS256 counts only with auth.secret_file.", "ES256")    \
    X(auth_clock_skew_ms, "auth.clock_skew", DURATION, "30s", CV_RANGE(0, 5 * CV_MINUTES), NULL,   \
      0,                                                                                           \
      "How far clocks may differ when `exp` and `nbf` are looked at.", "60s")                      \
    X(auth_cache_ttl_ms, "auth.cache_ttl", DURATION, "5m", CV_RANGE(0, 1 * CV_HOURS),              \
      "AUTH_TOKEN_CACHE_TTL", 0,                                                                   \
      "How long a verified token is remembered, never past its expiry; 0 verifies each time.",     \
      "1m")                                                                                        \
    X(auth_expiry_grace_ms, "auth.expiry_grace", DURATION, "30s", CV_RANGE(0, 1 * CV_HOURS), NULL, \
      CV_SETTING_RUNTIME,                                                                          \
      "Requests that are under way when the token of their agent's link expires may take so long " \
      "to end; new ones are refused. Then the link is closed.",                                    \
      "5m")                                                                                        \
    X(auth_jwks_refresh_ms, "auth.jwks_refresh", DURATION, "10m",                                  \
      CV_RANGE(10 * CV_SECONDS, 1 * CV_DAYS), NULL, 0,                                             \
      "How often the keys are fetched again.", "1h")                                               \
    X(auth_jwks_grace_ms, "auth.jwks_grace", DURATION, "24h", CV_RANGE(0, 30 * CV_DAYS), NULL, 0,  \
      "How long known keys stay valid while they cannot be fetched.", "6h")                        \
    X(auth_claims_tier, "auth.claims.tier", STRING, "tier", CV_ANY, NULL, 0,                       \
      "Claim with the user's tier.", "https://example.org/tier")                                   \
    X(auth_claims_permissions, "auth.claims.permissions", STRING, "permissions", CV_ANY, NULL, 0,  \
      "Claim with the user's permissions, a list of strings.", "permissions")                      \
    X(auth_claims_tunnels, "auth.claims.tunnels", STRING, "tunnels", CV_ANY, NULL, 0,              \
      "Claim with the tunnels a token is limited to; without it all of the user's.", "tunnels")    \
    X(auth_claims_groups, "auth.claims.groups", STRING, "groups", CV_ANY, NULL, 0,                 \
      "Claim with the user's groups, a list of strings or words in one: whom a tunnel can be "     \
      "shared with.", "https://example.org/groups")                                                \
    X(sharing, "sharing", ENUM, "users", CV_CHOICES("none|users|public"), NULL, CV_SETTING_RUNTIME, \
      "What owners may do with their tunnels: keep them to themselves (none), let other users of " \
      "this relay in, by subject or group (users), or anybody without a token as well (public).",  \
      "public")                                                                                    \
    X(ssh_host_key_file, "ssh.host_key_file", PATH, "", CV_ANY, NULL, 0,                           \
      "Ed25519 host key; without it one is made in the state folder at first start.",              \
      "/etc/culvert/host_key")                                                                     \
    X(ssh_max_channels, "ssh.max_channels", INT, "10", CV_RANGE(1, 1000), "SSH_MAX_CHANNELS", CV_SETTING_RUNTIME, \
      "Streams that may be open at once on a link; further requests wait.", "50")                  \
    X(ssh_keepalive_interval_ms, "ssh.keepalive_interval", DURATION, "60s",                        \
      CV_RANGE(0, 1 * CV_HOURS), "SSH_KEEPALIVE_INTERVAL", CV_SETTING_RUNTIME,                     \
      "A keep-alive is sent after this much silence; 0 sends none.", "30s")                        \
    X(ssh_rekey_bytes, "ssh.rekey_bytes", SIZE, "1GiB", CV_RANGE(16 * CV_KIB, 64 * CV_GIB), NULL,  \
      CV_SETTING_RUNTIME,                                                                          \
      "Keys are exchanged anew after so many bytes.", "4GiB")                                      \
    X(ssh_rekey_interval_ms, "ssh.rekey_interval", DURATION, "1h",                                 \
      CV_RANGE(10 * CV_SECONDS, 7 * CV_DAYS), NULL, CV_SETTING_RUNTIME, "Keys are exchanged anew after this time.", \
      "4h")                                                                                        \
    X(ssh_compression, "ssh.compression", BOOL, "false", CV_ANY, "SSH_COMPRESSION", 0,             \
      "Offer zlib@openssh.com. Costs more CPU than it saves on most networks.", "true")            \
    X(ssh_ciphers, "ssh.ciphers", LIST,                                                            \
      "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",               \
      CV_CHOICES(CV_SSH_CIPHERS), "SSH_CIPHER_ALGORITHMS", 0, "Ciphers to offer, best first.",     \
      "aes256-gcm@openssh.com")                                                                    \
    X(ssh_kex, "ssh.kex", LIST, "curve25519-sha256,curve25519-sha256@libssh.org",                  \
      CV_CHOICES(CV_SSH_KEX), "SSH_KEX_ALGORITHMS", 0,                                             \
      "Key exchange methods; both names mean the same one.",                                       \
      "curve25519-sha256")                                                                         \
    X(ssh_window_bytes, "ssh.window", SIZE, "2MiB", CV_RANGE(32 * CV_KIB, 64 * CV_MIB), NULL, CV_SETTING_RUNTIME, \
      "Receive window of a stream: what may wait for a slow reader.", "4MiB")                      \
    X(ssh_window_max_bytes, "ssh.window_max", SIZE, "16MiB", CV_RANGE(32 * CV_KIB, 64 * CV_MIB), NULL, 0, \
      "As far as the window of a stream grows that is read as fast as a long path needs it; not"   \
      " above ssh.window: it never grows.", "32MiB")                                               \
    X(ssh_handshake_timeout_ms, "ssh.handshake_timeout", DURATION, "20s",                          \
      CV_RANGE(1 * CV_SECONDS, 2 * CV_MINUTES), NULL, CV_SETTING_RUNTIME,                          \
      "The key exchange and login must be done in this time.", "10s")                              \
    X(ws_ping_interval_ms, "ws.ping_interval", DURATION, "30s",                                    \
      CV_RANGE(1 * CV_SECONDS, 10 * CV_MINUTES), "WS_PING_INTERVAL", CV_SETTING_RUNTIME,           \
      "A ping is sent after this much silence.", "15s")                                            \
    X(ws_pong_timeout_ms, "ws.pong_timeout", DURATION, "15s",                                      \
      CV_RANGE(1 * CV_SECONDS, 10 * CV_MINUTES), "WS_PONG_TIMEOUT", CV_SETTING_RUNTIME,            \
      "A link that stays silent this long after a ping is dead.", "5s")                            \
    X(ws_max_frame_bytes, "ws.max_frame_size", SIZE, "1MiB", CV_RANGE(64 * CV_KIB, 64 * CV_MIB),   \
      "WS_MAX_FRAME_SIZE", CV_SETTING_RUNTIME, "Larger frames are refused with close code 1009.", "256KiB") \
    X(link_replay_bytes, "link.replay_bytes", SIZE, "4MiB", CV_RANGE(256 * CV_KIB, 64 * CV_MIB),   \
      NULL, CV_SETTING_RUNTIME, "What is kept of a link until the other side has acknowledged it.", "8MiB") \
    X(link_replay_max_bytes, "link.replay_max", SIZE, "16MiB", CV_RANGE(256 * CV_KIB, 64 * CV_MIB), NULL, 0, \
      "As far as that grows on a path on which more is under way.", "32MiB")                       \
    X(link_resume_window_ms, "link.resume_window", DURATION, "60s", CV_RANGE(0, 1 * CV_HOURS),     \
      NULL, CV_SETTING_RUNTIME,                                                                    \
      "A link whose connection was lost waits so long for its agent before everything on it ends;" \
      " 0 does not wait.",                                                                         \
      "5m")                                                                                        \
    X(timers_first_byte_ms, "timers.first_byte", DURATION, "30s", CV_RANGE(0, 1 * CV_DAYS), NULL,  \
      CV_SETTING_RUNTIME,                                                                          \
      "The service must begin to answer in this time; 0 waits for ever. Presets have their own.",  \
      "2m")                                                                                        \
    X(timers_idle_ms, "timers.idle", DURATION, "30s", CV_RANGE(0, 1 * CV_DAYS), NULL, CV_SETTING_RUNTIME, \
      "An answer that stops for this long is cut; 0 never. Presets have their own.", "5m")         \
    X(timers_total_ms, "timers.total", DURATION, "0", CV_RANGE(0, 7 * CV_DAYS), NULL, CV_SETTING_RUNTIME, \
      "A request may take this long altogether; 0 has no limit.", "30m")                           \
    X(timers_agent_return_ms, "timers.agent_return", DURATION, "10s",                              \
      CV_RANGE(0, 10 * CV_MINUTES), NULL, 0,                                                       \
      "For so long after its start the relay keeps requests for a tunnel that nobody publishes "   \
      "yet, until it is there: agents need a moment to come back to a relay that was restarted. "  \
      "A TCP connection (`culvert forward`, `ssh -L`), which cannot be told to come back later, "  \
      "waits so long at any time for a tunnel that was there today. "                              \
      "With --dev 0 unless it is set; 0 answers at once.",                                         \
      "30s")                                                                                       \
    X(timers_asked_max_ms, "timers.asked_max", DURATION, "10m", CV_RANGE(1, 7 * CV_DAYS), NULL, CV_SETTING_RUNTIME, \
      "The most that a request may ask for in `Culvert-Timeout`, which stands in for first_byte "  \
      "and total; more counts as this.", "1h")                                                     \
    X(limits_head_bytes, "limits.head_bytes", SIZE, "16KiB", CV_RANGE(1 * CV_KIB, 1 * CV_MIB),     \
      NULL,                                                                                        \
      CV_SETTING_RUNTIME, "A request's line and fields; more is answered 431.", "32KiB")           \
    X(limits_line_bytes, "limits.line_bytes", SIZE, "8KiB", CV_RANGE(256, 1 * CV_MIB), NULL, CV_SETTING_RUNTIME, \
      "A request's first line; more is answered 414.", "16KiB")                                    \
    X(limits_fields, "limits.fields", INT, "100", CV_RANGE(8, 1000), NULL, CV_SETTING_RUNTIME,     \
      "Fields in a request; more are answered 431.", "200")                                        \
    X(limits_body_bytes, "limits.body_bytes", SIZE, "0", CV_RANGE(0, 1024 * CV_TIB), NULL, CV_SETTING_RUNTIME, \
      "A request's body; more is answered 413. 0 has no limit.", "100MiB")                         \
    X(limits_header_timeout_ms, "limits.header_timeout", DURATION, "10s",                          \
      CV_RANGE(1 * CV_SECONDS, 10 * CV_MINUTES), NULL, CV_SETTING_RUNTIME,                         \
      "A request's head must arrive in this time.", "20s")                                         \
    X(limits_body_idle_timeout_ms, "limits.body_idle_timeout", DURATION, "30s",                    \
      CV_RANGE(1 * CV_SECONDS, 1 * CV_HOURS), NULL, CV_SETTING_RUNTIME,                            \
      "A consumer that sends or takes nothing for this long in the middle of a request is cut, "   \
      "and one that in ten times this long sends less than 1 KiB or takes less than 16 KiB.",      \
      "60s")                                                                                       \
    X(limits_keepalive_timeout_ms, "limits.keepalive_timeout", DURATION, "75s",                    \
      CV_RANGE(1 * CV_SECONDS, 1 * CV_HOURS), NULL, CV_SETTING_RUNTIME,                            \
      "A consumer's connection without a request is closed after this time.", "15s")               \
    X(limits_handshake_timeout_ms, "limits.handshake_timeout", DURATION, "10s",                    \
      CV_RANGE(1 * CV_SECONDS, 2 * CV_MINUTES), NULL, CV_SETTING_RUNTIME,                          \
      "The TLS handshake must be done in this time.", "5s")                                        \
    X(limits_max_connections, "limits.max_connections", INT, "10000", CV_RANGE(16, 1000000), NULL, \
      CV_SETTING_RUNTIME, "Connections of all kinds at once.", "50000")                            \
    X(limits_max_links_per_user, "limits.max_links_per_user", INT, "0", CV_RANGE(0, 10000),        \
      "MAX_CONNECTIONS_PER_USER", CV_SETTING_RUNTIME,                                              \
      "Links that one user may have at once, whatever the tier; 0: as many as the tier grants.",   \
      "10")                                                                                        \
    X(limits_rpm, "limits.requests_per_minute", INT, "0", CV_RANGE(0, CV_RPM_MAX),                 \
      "RATE_LIMIT_GLOBAL_RPM", CV_SETTING_RUNTIME,                                                 \
      "Requests a minute that the whole relay forwards; 0 has no limit.", "60000")                 \
    X(limits_burst, "limits.burst", INT, "0", CV_RANGE(0, CV_RPM_MAX), "RATE_LIMIT_GLOBAL_BURST",  \
      CV_SETTING_RUNTIME, "Of them, so many at once; 0: a minute's worth.", "5000")                \
    X(limits_default_tier, "limits.default_tier", STRING, "free", CV_ANY, NULL, CV_SETTING_RUNTIME, \
      "The tier of tokens that name none, or one that is not known here.", "free")                 \
    X(limits_free_rpm, "limits.free.requests_per_minute", INT, "100", CV_RANGE(0, CV_RPM_MAX),     \
      "RATE_LIMIT_FREE_RPM", CV_SETTING_RUNTIME,                                                   \
      "Requests a minute of a user of the tier free, as many of them at once; 0 has no limit. "    \
      "Upgrades to links are counted apart, with the same numbers.", "300")                        \
    X(limits_free_links, "limits.free.links", INT, "3", CV_RANGE(1, 10000),                        \
      "RATE_LIMIT_FREE_CONN", CV_SETTING_RUNTIME, "Links at once of a user of the tier free.", "5") \
    X(limits_premium_rpm, "limits.premium.requests_per_minute", INT, "500",                        \
      CV_RANGE(0, CV_RPM_MAX), "RATE_LIMIT_PREMIUM_RPM", CV_SETTING_RUNTIME,                       \
      "The same for the tier premium.", "1000")                                                    \
    X(limits_premium_links, "limits.premium.links", INT, "10", CV_RANGE(1, 10000),                 \
      "RATE_LIMIT_PREMIUM_CONN", CV_SETTING_RUNTIME, "Links at once of a user of the tier premium.", "20") \
    X(limits_enterprise_rpm, "limits.enterprise.requests_per_minute", INT, "5000",                 \
      CV_RANGE(0, CV_RPM_MAX), "RATE_LIMIT_ENTERPRISE_RPM", CV_SETTING_RUNTIME,                    \
      "The same for the tier enterprise.", "10000")                                                \
    X(limits_enterprise_links, "limits.enterprise.links", INT, "50", CV_RANGE(1, 10000),           \
      "RATE_LIMIT_ENTERPRISE_CONN", CV_SETTING_RUNTIME, "Links at once of a user of the tier enterprise.", "100") \
    X(limits_half_open, "limits.half_open", INT, "4096", CV_RANGE(16, 1000000), NULL, CV_SETTING_RUNTIME, \
      "The same from all addresses together.", "1024")                                             \
    X(limits_ip_rpm, "limits.ip.requests_per_minute", INT, "6000", CV_RANGE(0, CV_RPM_MAX),        \
      "RATE_LIMIT_IP_RPM", CV_SETTING_RUNTIME,                                                     \
      "Requests a minute from one address (of IPv6, from one /64), as many of them at once. 0 "    \
      "switches off everything that is counted by address.", "600")                                \
    X(limits_ip_upgrades, "limits.ip.upgrades_per_minute", INT, "600", CV_RANGE(0, CV_RPM_MAX),    \
      NULL, CV_SETTING_RUNTIME,                                                                    \
      "WebSocket upgrades of agents a minute from one address; 0 has no limit. Links that are "    \
      "resumed do not count, up to 60 times a minute each.", "60")                                 \
    X(limits_ip_connections, "limits.ip.connections", INT, "1024", CV_RANGE(0, 1000000), NULL, CV_SETTING_RUNTIME, \
      "Connections at once from one address; 0 has no limit. Those of trusted_proxy do not count.", \
      "100")                                                                                       \
    X(limits_ip_half_open, "limits.ip.half_open", INT, "256", CV_RANGE(0, 1000000), NULL, CV_SETTING_RUNTIME, \
      "Connections from one address that have not yet brought a whole request head, TLS included;" \
      " 0 has no limit.", "32")                                                                    \
    X(limits_ip_auth_failures, "limits.ip.auth_failures_per_minute", INT, "10",                    \
      CV_RANGE(0, CV_RPM_MAX), NULL, CV_SETTING_RUNTIME,                                           \
      "Failed authentications from one address that are answered at once; each one more is "       \
      "answered later, and the delay decays with time. 0 slows nobody.", "5")                      \
    X(limits_auth_penalty_ms, "limits.auth_penalty", DURATION, "5s", CV_RANGE(0, 1 * CV_MINUTES),  \
      NULL, CV_SETTING_RUNTIME, "The longest such delay.", "10s")                                  \
    X(limits_user_replay_bytes, "limits.user_replay_bytes", SIZE, "64MiB",                         \
      CV_RANGE(16 * CV_MIB, 64 * CV_GIB), NULL, CV_SETTING_RUNTIME,                                \
      "What is kept for all links of a user until their agents have acknowledged it; each link has" \
      " its share.",                                                                               \
      "256MiB")                                                                                    \
    X(limits_user_growth_bytes, "limits.user_growth_bytes", SIZE, "64MiB",                         \
      CV_RANGE(0, 64 * CV_GIB), NULL, 0,                                                           \
      "How much the windows and replay buffers of all links of a user may grow, together, beyond"  \
      " ssh.window and link.replay_bytes.",                                                        \
      "256MiB")                                                                                    \
    X(limits_growth_bytes, "limits.growth_bytes", SIZE, "512MiB", CV_RANGE(0, 64 * CV_GIB), NULL,  \
      0, "The same, of all users together; 0: none ever grows.", "2GiB")                           \
    X(tiers, "tiers", RECORDS, "", .record = &cv_tier_schema, NULL, CV_SETTING_LIVE,               \
      "Further tiers; one named free, premium or enterprise stands in for the settings above.",    \
      "")                                                                                          \
    X(cors_origins, "cors.origins", LIST_ORIGIN, "", CV_ANY, NULL, CV_SETTING_RUNTIME,             \
      "Origins whose web pages may call tunnels and open WebSockets; `*` is any.",                 \
      "https://app.example.org")                                                                   \
    X(queue_size, "queue.size", INT, "100", CV_RANGE(10, 1000), NULL, CV_SETTING_RUNTIME,          \
      "Requests of a user that may wait for a stream.", "200")                                     \
    X(queue_ageing_ms, "queue.ageing", DURATION, "10s", CV_RANGE(0, 1 * CV_HOURS), NULL, CV_SETTING_RUNTIME, \
      "Who has waited for this long counts as one priority higher; 0: whatever the wait.", "30s")  \
    X(breaker_failures, "breaker.failures", INT, "5", CV_RANGE(0, 255), "CB_FAILURE_THRESHOLD", CV_SETTING_RUNTIME, \
      "After so many failures of a tunnel's service in a row nothing is sent to it for a while; 0 "\
      "never stops.", "10")                                                                        \
    X(breaker_successes, "breaker.successes", INT, "2", CV_RANGE(1, 255), "CB_SUCCESS_THRESHOLD",  \
      CV_SETTING_RUNTIME, "So many requests, one at a time, must go well before all go through again.", "1") \
    X(breaker_reset_ms, "breaker.reset", DURATION, "60s", CV_RANGE(1, 1 * CV_HOURS),               \
      "CB_RESET_TIMEOUT", CV_SETTING_RUNTIME, "For how long nothing is sent before one request tries.", "15s") \
    X(breaker_counts_statuses, "breaker.counts_statuses", BOOL, "false", CV_ANY, NULL, CV_SETTING_RUNTIME, \
      "The service's own answers 502, 503 and 504 are failures too.", "true")                      \
    X(shutdown_grace_ms, "shutdown.grace", DURATION, "0", CV_RANGE(0, 1 * CV_HOURS), NULL, CV_SETTING_RUNTIME, \
      "How long the relay still accepts connections once it is told to stop, while /readyz says "  \
      "503 and agents are told. Behind a load balancer: longer than that takes to notice.",        \
      "15s")                                                                                       \
    X(shutdown_drain_ms, "shutdown.drain", DURATION, "30s", CV_RANGE(0, 1 * CV_HOURS), NULL, CV_SETTING_RUNTIME, \
      "How long requests under way may take to end once the relay is told to stop.", "5m")         \
    X(incidents_alertmanager_url, "incidents.alertmanager_url", URL, "", CV_CHOICES("https|http"), \
      NULL, CV_SETTING_SECRET,                                                                                     \
      "An Alertmanager that is told of open breakers, failing requests and storms "                \
      "(docs/incidents.md); what stands before `/api/v2/alerts`. Nobody is told unless set.",      \
      "http://alertmanager.internal:9093")                                                         \
    X(incidents_webhook_url, "incidents.webhook_url", URL, "", CV_CHOICES("https|http"), NULL, \
      CV_SETTING_SECRET, \
      "A web address that gets the same as JSON, once when it begins and once when it is over.",   \
      "https://hooks.example.org/culvert")                                                         \
    X(incidents_runbook_url, "incidents.runbook_url", URL, "", CV_CHOICES("https|http"), NULL, 0,  \
      "Where docs/runbooks is found, for a link in what is told.",                                 \
      "https://docs.example.org/runbooks")                                                         \
    X(incidents_dashboard_url, "incidents.dashboard_url", URL, "", CV_CHOICES("https|http"), NULL, \
      0, "Where Grafana shows dashboards, for a link in what is told.",                            \
      "https://grafana.example.org/d")                                                             \
    X(incidents_debounce_ms, "incidents.debounce", DURATION, "10s", CV_RANGE(0, 1 * CV_HOURS),     \
      NULL, 0, "Something must be wrong for so long before anybody is told.", "1m")                \
    X(incidents_calm_ms, "incidents.calm", DURATION, "1m",                                         \
      CV_RANGE(1 * CV_SECONDS, 1 * CV_HOURS), NULL, 0,                                             \
      "And right again for so long before it is told as over; twice, four and eight times as "     \
      "long for what comes back again and again.",                                                 \
      "5m")                                                                                        \
    X(incidents_repeat_ms, "incidents.repeat", DURATION, "15s",                                    \
      CV_RANGE(1 * CV_SECONDS, 10 * CV_MINUTES), NULL, 0,                                          \
      "Alertmanager is told again so often that it is still so; what nobody repeats ends after "   \
      "its `resolve_timeout`.",                                                                    \
      "1m")                                                                                        \
    X(incidents_error_percent, "incidents.error_percent", INT, "5", CV_RANGE(1, 100), NULL, 0,     \
      "More of this relay's requests in 5 minutes than this must fail, of at least 10, for it to " \
      "be told.",                                                                                  \
      "10")                                                                                        \
    X(incidents_storm_per_second, "incidents.storm_per_second", INT, "100",                        \
      CV_RANGE(1, 1000000), NULL, 0,                                                               \
      "More attempts a second than this, to open or resume a link on this relay, are a storm.",    \
      "500")                                                                                       \
    X(audit_enabled, "audit.enabled", BOOL, "true", CV_ANY, NULL, 0,                               \
      "Keep an audit log: who connected, asked, was refused, changed what (docs/audit.md).",       \
      "false")                                                                                     \
    X(audit_file, "audit.file", PATH, "", CV_ANY, NULL, 0,                                         \
      "Its file; without it audit-ADDRESS.jsonl in the state folder, ADDRESS being the first of "  \
      "`listen`.",                                                                                 \
      "/var/log/culvert/audit.jsonl")                                                              \
    X(audit_events, "audit.events", LIST, "link,auth,limit,admin",                                 \
      CV_CHOICES("link|auth|forward|limit|admin"), NULL, 0,                                        \
      "Which kinds of records it has. With `forward` each request to a tunnel leaves one: it "     \
      "costs a fifth more CPU for small requests, and is a diary of what people do.",              \
      "link,auth,forward,limit,admin")                                                             \
    X(audit_fsync, "audit.fsync", ENUM, "interval", CV_CHOICES("always|interval|never"), NULL, 0,  \
      "When records are sure to survive a power cut: with each batch of them, within a second, or" \
      " when the system has written them. No request waits for any of it.", "always")              \
    X(audit_max_bytes, "audit.max_size", SIZE, "64MiB", CV_RANGE(0, 1 * CV_TIB), NULL, 0,          \
      "A larger file is renamed, to .1, .2 and so on, and a new one goes on with its chain; 0 "    \
      "never.",                                                                                    \
      "1GiB")                                                                                      \
    X(audit_keep, "audit.keep", INT, "16", CV_RANGE(0, 100000), NULL, 0,                           \
      "Renamed files that are kept, the oldest go; 0 keeps all.", "100")                           \
    X(canary_interval_ms, "canary.interval", DURATION, "30s", CV_RANGE(0, 1 * CV_HOURS), NULL, 0,  \
      "A tunnel whose service no request has seen for so long gets a small one of the relay's own, "  \
      "which tells whether it is up (docs/health.md); 0 sends none.",                              \
      "2m")                                                                                        \
    X(canary_timeout_ms, "canary.timeout", DURATION, "10s",                                        \
      CV_RANGE(100, 5 * CV_MINUTES), NULL, 0,                                                      \
      "A service that has not answered it by then is slow.", "30s")                                \
    X(canary_slow_ms, "canary.slow", DURATION, "2s", CV_RANGE(1, 5 * CV_MINUTES), NULL, 0,         \
      "… and so is one that took so long.", "5s")                                                  \
    X(health_stall_ms, "health.stall", DURATION, "10s",                                            \
      CV_RANGE(2 * CV_SECONDS, 10 * CV_MINUTES), NULL, 0,                                          \
      "A worker that has not come around for so long makes /livez say 503.", "30s")                \
    X(history_enabled, "history.enabled", BOOL, "true", CV_ANY, NULL, 0,                           \
      "Keep what users and tunnels did, by minute and hour, in history-ADDRESS.db in the state "   \
      "folder, ADDRESS being the first of `listen` (docs/history.md).",                            \
      "false")                                                                                     \
    X(history_minutes_for_ms, "history.minutes_for", DURATION, "7d",                               \
      CV_RANGE(1 * CV_HOURS, 400 * CV_DAYS), NULL, 0,                                              \
      "For so long there is a row for each minute; then they are added up to hours.", "2d")        \
    X(history_hours_for_ms, "history.hours_for", DURATION, "90d",                                  \
      CV_RANGE(1 * CV_HOURS, 4000 * CV_DAYS), NULL, 0, "For so long there is a row for each hour.", \
      "365d")                                                                                      \
    X(history_max_rows, "history.max_rows", INT, "1000000", CV_RANGE(1000, 1000000000), NULL, 0,   \
      "Above so many rows the oldest minutes become hours early, then the oldest hours go.",       \
      "100000")                                                                                    \
    X(history_max_bytes, "history.max_size", SIZE, "256MiB", CV_RANGE(16 * CV_MIB, 1 * CV_TIB),    \
      NULL, 0, "The file is never larger; the same happens at three quarters of it.", "1GiB")      \
    X(history_series, "history.series", INT, "1000", CV_RANGE(16, 100000), NULL, 0,                \
      "So many tunnels have numbers of their own in a minute, at some 8 KiB for each worker; "      \
      "beyond, they count for the whole relay alone.",                                             \
      "10000")                                                                                     \
    CV_TRACING_SETTINGS(X)                                                                         \
    X(tracing_answer, "tracing.answer", ENUM, "traceresponse",                                     \
      CV_CHOICES("traceresponse|server-timing|none"), NULL, 0,                                     \
      "How an answer says of which trace it is a part, when spans are sent: a `traceresponse` "    \
      "field, an entry of `Server-Timing`, which pages can read, or not at all.",                  \
      "server-timing")                                                                             \
    X(log_level, "log.level", ENUM, "info", CV_CHOICES("error|warn|info|debug|trace"),             \
      "LOG_LEVEL",                                                                                 \
      CV_SETTING_RUNTIME, "What is logged; SIGUSR1 raises it and SIGUSR2 lowers it by one.", "debug") \
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

/* The C type of a kind's field. */
#define CV_TYPE_BOOL bool
#define CV_TYPE_INT uint32_t
#define CV_TYPE_DURATION uint64_t
#define CV_TYPE_SIZE uint64_t
#define CV_TYPE_STRING char *
#define CV_TYPE_PATH char *
#define CV_TYPE_ENUM char *
#define CV_TYPE_URLPATH char *
#define CV_TYPE_HOSTNAME char *
#define CV_TYPE_HOSTPORT char *
#define CV_TYPE_URL char *
#define CV_TYPE_TUNNEL_NAME char *
#define CV_TYPE_LIST struct cv_strings
#define CV_TYPE_LIST_HOSTPORT struct cv_strings
#define CV_TYPE_LIST_CIDR struct cv_strings
#define CV_TYPE_LIST_ORIGIN struct cv_strings
#define CV_TYPE_RECORDS struct cv_records

#define CV_SETTING_FIELD(field, key, kind, ...) CV_TYPE_##kind field;
#define CV_SETTING_COUNT(...) +1

struct cv_tier_config {
    CV_TIER_SETTINGS(CV_SETTING_FIELD)
};

extern const struct cv_schema cv_tier_schema;

struct cv_relay_config {
    CV_RELAY_SETTINGS(CV_SETTING_FIELD)
    struct cv_origin origins[0 CV_RELAY_SETTINGS(CV_SETTING_COUNT)];
};

extern const struct cv_schema cv_relay_schema;

/* Loads as cv_settings_load does, and checks what spans settings: certificate and key together,
 * TLS or trusted_proxy and a source of keys unless `sources->is_dev`, an issuer and an audience
 * with a jwks_url, listening on loopback only with --dev, limits.line_bytes within
 * limits.head_bytes. PORT and HOST in the environment stand for `listen`. On any problem *config is
 * NULL and `problems` says all of them; CV_CONFIG, CV_IO or CV_NO_MEMORY. */
struct cv_status cv_relay_config_load(const struct cv_config_sources *sources,
                                      struct cv_relay_config **config,
                                      struct cv_problems *problems);
void cv_relay_config_free(struct cv_relay_config **config);

/* A copy of `old` with `overrides` over it, checked as a whole in the same way. */
struct cv_status cv_relay_config_patch(const struct cv_relay_config *old,
                                       const struct cv_override *overrides, size_t count,
                                       bool is_dev, struct cv_relay_config **config,
                                       struct cv_problems *problems);

/* What `running` becomes with `loaded` (cv_settings_merge), checked as a whole: CV_CONFIG with
 * `problems`, CV_NO_MEMORY; *config is NULL then. */
struct cv_status cv_relay_config_merge(const struct cv_relay_config *running,
                                       const struct cv_relay_config *loaded, bool is_dev,
                                       struct cv_relay_config **config, struct cv_problems *left,
                                       struct cv_problems *problems);

#endif
