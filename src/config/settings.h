/* SPDX-License-Identifier: MIT
 *
 * The engine under relay_config and agent_config: a schema is one table of settings (an X-macro in
 * the program's header), and defaults, checks, environment names, `config show` and
 * docs/configuration.md all come from it.
 * A loaded configuration owns all its strings, never changes and may be read by any thread.
 */
#ifndef CV_CONFIG_SETTINGS_H
#define CV_CONFIG_SETTINGS_H

#include "base/buf.h"
#include "base/status.h"

#define CV_CONFIG_FILE_MAX (1024 * 1024)
#define CV_CONFIG_DEPTH_MAX 8
#define CV_CONFIG_LIST_MAX 256
#define CV_CONFIG_VALUE_MAX 4096
#define CV_CONFIG_PROBLEMS_MAX 100

enum cv_setting_kind {
    CV_KIND_BOOL,        /* bool */
    CV_KIND_INT,         /* uint32_t */
    CV_KIND_DURATION,    /* uint64_t milliseconds; CV_UNSET without a default */
    CV_KIND_SIZE,        /* uint64_t bytes */
    CV_KIND_STRING,      /* char *, this and the following: NULL when unset */
    CV_KIND_PATH,        /* char *, a file's path; relative ones are relative to the process */
    CV_KIND_ENUM,        /* char *, one of the choices */
    CV_KIND_URLPATH,     /* char *, begins with '/' */
    CV_KIND_HOSTNAME,    /* char * */
    CV_KIND_HOSTPORT,    /* char *, cv_value_hostport reads it */
    CV_KIND_URL,         /* char *, its scheme one of the choices */
    CV_KIND_TUNNEL_NAME, /* char * */
    CV_KIND_LIST, /* struct cv_strings, this and the following; items from the choices if given */
    CV_KIND_LIST_HOSTPORT, /* cv_value_hostport reads each */
    CV_KIND_LIST_CIDR,     /* cv_value_cidr reads each */
    CV_KIND_LIST_ORIGIN,
    CV_KIND_RECORDS, /* struct cv_records: a list of mappings, each with the settings of `record` */
};

/* A duration that has no default and was not given. */
#define CV_UNSET UINT64_MAX

struct cv_strings {
    char **items;
    size_t count;
};

struct cv_records {
    void *items; /* array of the record's struct */
    size_t count;
};

#define CV_SETTING_LIVE 1u     /* SIGHUP applies a new value; without these a restart is needed */
#define CV_SETTING_SECRET 2u   /* masked wherever it is shown */
#define CV_SETTING_RUNTIME 8u  /* SIGHUP does, and the management API at once */
#define CV_SETTING_REREAD 16u  /* a file that SIGHUP reads again; where it is takes a restart */
#define CV_SETTING_TOLD 32u    /* `culvert config set` changes it in agents that run, at once … */
#define CV_SETTING_NEXT 64u    /* … and it holds from the next link on */
#define CV_SETTING_REQUIRED 4u /* only in records: each one must have it */

struct cv_setting {
    const char *key; /* "ws.ping_interval" */
    enum cv_setting_kind kind;
    size_t offset;            /* of the field in the values */
    const char *default_text; /* as one would write it; "" for unset; lists with commas */
    uint64_t min, max;        /* of numbers */
    const char *choices;      /* "json|text"; NULL where anything goes */
    const char *env;          /* established name besides CULVERT_<KEY>; NULL without */
    unsigned flags;
    const char *help;    /* a sentence */
    const char *example; /* a value */
    const struct cv_schema *record;
};

struct cv_schema {
    const char *name; /* "relay" */
    const struct cv_setting *settings;
    size_t count;
    size_t size;           /* of the values' struct */
    size_t origins_offset; /* of its struct cv_origin[count]; records have none */
};

enum cv_origin_kind {
    CV_ORIGIN_DEFAULT,
    CV_ORIGIN_FILE,
    CV_ORIGIN_ENV,
    CV_ORIGIN_FLAG,
    CV_ORIGIN_API, /* changed while the program runs */
};

/* Where a value came from. */
struct cv_origin {
    enum cv_origin_kind kind;
    unsigned line;       /* in the file */
    bool is_established; /* environment: under the setting's `env`, not CULVERT_<KEY> */
};

/* One thing that is wrong. All owned by the list. */
struct cv_problem {
    char *where;   /* "culvert.yaml:12", "CULVERT_WS_PING_INTERVAL", "--workers" */
    unsigned line; /* 0 where it is no file */
    char *key;     /* "ws.ping_interval"; "" when it is about the file */
    char *value;   /* as written, secrets masked; "" when there is none */
    char *text;    /* "5ms is out of range, 1s to 10m" */
};

/* All that is wrong, in the order it was found, at most CV_CONFIG_PROBLEMS_MAX. */
struct cv_problems {
    struct cv_problem *items;
    size_t count;
    size_t unlisted; /* found beyond the cap or for lack of memory */
};

void cv_problems_init(struct cv_problems *problems);
void cv_problems_done(struct cv_problems *problems);
/* Writes "where: key: text" a line each. CV_NO_RESOURCES when `out` is full. */
struct cv_status cv_problems_print(const struct cv_problems *problems, struct cv_buf *out);
/* Adds one; strings are copied, NULL counts as "". For checks that span settings. */
void cv_problems_add(struct cv_problems *problems, const char *where, unsigned line,
                     const char *key, const char *value, const char *text);

/* A command-line flag that sets a setting. */
struct cv_override {
    /* "workers"; "tunnels[0].name" sets a record, made with defaults when it is one behind the
     * last; "tunnels" with the value "" empties the list. */
    const char *key;
    const char *value; /* lists with commas */
    const char *where; /* "--workers" */
};

/* Where a configuration comes from. All borrowed for the call. */
struct cv_config_sources {
    const char *path;                    /* YAML file; NULL for none */
    const char *const *env;              /* like environ; NULL for none */
    const struct cv_override *overrides; /* flags */
    size_t override_count;
    bool is_dev; /* --dev: what must be configured is less strict */
};

/* Fills `values` (zeroed, schema->size bytes) from defaults, file, environment, overrides, the
 * later ones winning. Every problem is added to `problems` and the value before it stays, so that
 * all are found at once. CV_CONFIG when there was any, CV_NO_MEMORY, CV_IO when the file cannot be
 * read (told in `problems` too). `values` must be given to cv_settings_done in every case. */
struct cv_status cv_settings_load(const struct cv_schema *schema, void *values,
                                  const struct cv_config_sources *sources,
                                  struct cv_problems *problems);
/* The same for text in memory; `name` stands for the file in problems. */
struct cv_status cv_settings_load_text(const struct cv_schema *schema, void *values,
                                       struct cv_slice text, const char *name,
                                       struct cv_problems *problems);
void cv_settings_done(const struct cv_schema *schema, void *values);
/* A copy of `from` in `to` (zeroed), with `overrides` over it whose origin is CV_ORIGIN_API.
 * CV_CONFIG with all that is wrong in `problems`, CV_NO_MEMORY; `to` is for cv_settings_done in
 * every case. */
struct cv_status cv_settings_patch(const struct cv_schema *schema, const void *from, void *to,
                                   const struct cv_override *overrides, size_t count,
                                   struct cv_problems *problems);

/* What `running` becomes with `loaded`, from the same sources read again, in `to` (zeroed):
 * settings that can change while the program runs are those of `loaded`, unless the management API
 * has set them; all others stay. Those that differ and stay are in `left`, with the reason as text.
 * CV_NO_MEMORY; `to` is for cv_settings_done in every case. */
struct cv_status cv_settings_merge(const struct cv_schema *schema, const void *running,
                                   const void *loaded, void *to, struct cv_problems *left);

/* Whether a setting, by its place in the schema, has the same value in both. */
bool cv_settings_is_same(const struct cv_schema *schema, const void *one, const void *other,
                         size_t index);

/* The setting of a key, NULL when there is none. */
const struct cv_setting *cv_settings_find(const struct cv_schema *schema, const char *key);
/* The key that was probably meant; NULL when nothing is near. */
const char *cv_settings_nearest(const struct cv_schema *schema, const char *key);
/* Where its value came from; the default for a key that does not exist. */
struct cv_origin cv_settings_origin(const struct cv_schema *schema, const void *values,
                                    const char *key);
/* "CULVERT_WS_PING_INTERVAL" of a setting, into 96 bytes. */
void cv_settings_env_name(const struct cv_setting *setting, char out[96]);

/* Appends all values as YAML that loads again (but for masked secrets); with `has_origins` a
 * comment after each says where it came from. */
struct cv_status cv_settings_show(const struct cv_schema *schema, const void *values,
                                  bool has_origins, struct cv_buf *out);
/* Appends one value as YAML in flow style, secrets as they are; nothing for one that is not set.
 * Not for records. */
struct cv_status cv_settings_show_value(const struct cv_setting *setting, const void *values,
                                        struct cv_buf *out);
/* Appends all values as one JSON object with flat keys ("ws.ping_interval"); numbers and booleans
 * as such, times and sizes as text with their unit, null for what is unset; secrets masked. */
struct cv_status cv_settings_show_json(const struct cv_schema *schema, const void *values,
                                       struct cv_buf *out);
/* Appends the reference of all settings as Markdown. */
struct cv_status cv_settings_doc(const struct cv_schema *schema, struct cv_buf *out);

#endif
