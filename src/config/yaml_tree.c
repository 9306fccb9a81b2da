/* SPDX-License-Identifier: MIT */
#include "config/yaml_tree.h"

#include <yaml.h>

struct level {
    struct cv_yaml_node *node;
    struct cv_yaml_node *last; /* child */
    char *key;                 /* read, its value not yet */
    unsigned key_line;
};

struct build {
    yaml_parser_t parser;
    struct cv_yaml_node *root;
    struct level levels[CV_CONFIG_DEPTH_MAX];
    unsigned depth;
    unsigned nodes;
    unsigned documents;
    const char *name;
    struct cv_problems *problems;
    unsigned *line;
    char *why;
    size_t cap;
};

void cv_yaml_tree_free(struct cv_yaml_node **root)
{
    struct cv_yaml_node *node = *root;
    while (node) {
        struct cv_yaml_node *next = node->next;
        cv_yaml_tree_free(&node->first); /* as deep as CV_CONFIG_DEPTH_MAX */
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
    *root = NULL;
}

static struct cv_status refuse(struct build *b, size_t line, const char *why)
{
    *b->line = (unsigned)line;
    (void)snprintf(b->why, b->cap, "%s", why);
    return cv_status(CV_CONFIG);
}

/* Takes `key`. Adds to the innermost map or list, or makes the root. */
static struct cv_status add_node(struct build *b, enum cv_yaml_kind kind, char *key, unsigned line,
                                 struct cv_yaml_node **out)
{
    struct cv_yaml_node *node = calloc(1, sizeof *node);
    if (!node) {
        free(key);
        return cv_status(CV_NO_MEMORY);
    }
    *node = (struct cv_yaml_node){.kind = kind, .line = line, .key = key};
    if (b->depth == 0) {
        b->root = node;
    } else {
        struct level *level = &b->levels[b->depth - 1];
        if (level->last)
            level->last->next = node;
        else
            level->node->first = node;
        level->last = node;
    }
    *out = node;
    return cv_ok();
}

static bool is_key_next(const struct build *b)
{
    return b->depth > 0 && b->levels[b->depth - 1].node->kind == CV_YAML_MAP &&
           !b->levels[b->depth - 1].key;
}

static bool has_nul(const yaml_event_t *event)
{
    return memchr(event->data.scalar.value, '\0', event->data.scalar.length) != NULL;
}

static struct cv_status on_key(struct build *b, const yaml_event_t *event, unsigned line)
{
    struct level *level = &b->levels[b->depth - 1];
    const char *text = (const char *)event->data.scalar.value;
    if (event->data.scalar.length == 0 || event->data.scalar.length > 128 || has_nul(event))
        return refuse(b, line, "a key is empty or too long");
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c == 0x7f)
            return refuse(b, line, "a key has spaces or control characters in it");
    for (const struct cv_yaml_node *n = level->node->first; n; n = n->next) {
        if (strcmp(n->key, text) != 0)
            continue;
        char why[80];
        (void)snprintf(why, sizeof why, "is given twice, first in line %u", n->line);
        cv_problems_add(b->problems, b->name, line, text, "", why);
    }
    level->key = strdup(text);
    level->key_line = line;
    return level->key ? cv_ok() : cv_status(CV_NO_MEMORY);
}

/* YAML's ways to write "nothing". */
static bool is_null(const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    return event->data.scalar.plain_implicit &&
           event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static struct cv_status on_value(struct build *b, const yaml_event_t *event, enum cv_yaml_kind kind,
                                 unsigned line)
{
    if (b->depth == 0 && kind != CV_YAML_MAP && kind != CV_YAML_NULL)
        return refuse(b, line, "the file must be a mapping of keys to values");
    if (b->depth == CV_CONFIG_DEPTH_MAX && kind != CV_YAML_SCALAR && kind != CV_YAML_NULL)
        return refuse(b, line, "nested too deeply");
    struct level *level = b->depth ? &b->levels[b->depth - 1] : NULL;
    char *key = level ? level->key : NULL;
    if (key)
        line = level->key_line; /* what people look for */
    if (level)
        level->key = NULL;
    struct cv_yaml_node *node = NULL;
    CV_RETURN_IF_ERROR(add_node(b, kind, key, line, &node));
    if (kind == CV_YAML_SCALAR) {
        if (event->data.scalar.length > CV_CONFIG_VALUE_MAX || has_nul(event))
            return refuse(b, line, "a value is too long or has a NUL byte in it");
        node->text = strdup((const char *)event->data.scalar.value);
        if (!node->text)
            return cv_status(CV_NO_MEMORY);
    } else if (kind != CV_YAML_NULL) {
        b->levels[b->depth++] = (struct level){.node = node};
    }
    return cv_ok();
}

static struct cv_status on_event(struct build *b, const yaml_event_t *event)
{
    unsigned line = (unsigned)event->start_mark.line + 1;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->documents++ > 0)
            return refuse(b, line, "only one YAML document is taken");
        return cv_ok();
    case YAML_ALIAS_EVENT:
        return refuse(b, line, "aliases are not taken");
    case YAML_SCALAR_EVENT:
        if (event->data.scalar.tag || event->data.scalar.anchor)
            return refuse(b, line, "tags and anchors are not taken");
        if (++b->nodes > CV_YAML_NODES_MAX)
            return refuse(b, line, "too many entries");
        if (is_key_next(b))
            return on_key(b, event, line);
        return on_value(b, event, is_null(event) ? CV_YAML_NULL : CV_YAML_SCALAR, line);
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        /* A map's tag and anchor lie where a list's do not: ask each for its own. */
        if (event->type == YAML_MAPPING_START_EVENT
                ? event->data.mapping_start.tag || event->data.mapping_start.anchor
                : event->data.sequence_start.tag || event->data.sequence_start.anchor)
            return refuse(b, line, "tags and anchors are not taken");
        if (++b->nodes > CV_YAML_NODES_MAX)
            return refuse(b, line, "too many entries");
        if (is_key_next(b))
            return refuse(b, line, "a key must be plain text");
        return on_value(b, event,
                        event->type == YAML_MAPPING_START_EVENT ? CV_YAML_MAP : CV_YAML_LIST, line);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return cv_ok();
    default:
        return cv_ok();
    }
}

static struct cv_status parse_all(struct build *b)
{
    for (bool is_done = false; !is_done;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&b->parser, &event)) {
            if (b->parser.error == YAML_MEMORY_ERROR)
                return cv_status(CV_NO_MEMORY);
            const char *problem = b->parser.problem ? b->parser.problem : "this is not YAML";
            return refuse(b, b->parser.problem_mark.line + 1, problem);
        }
        struct cv_status status = on_event(b, &event);
        is_done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        CV_RETURN_IF_ERROR(status);
    }
    return cv_ok();
}

struct cv_status cv_yaml_tree_parse(struct cv_slice text, const char *name,
                                    struct cv_problems *problems, struct cv_yaml_node **root,
                                    unsigned *line, char *why, size_t cap)
{
    struct build b = {.name = name, .problems = problems, .line = line, .why = why, .cap = cap};
    *root = NULL;
    *line = 0;
    why[0] = '\0';
    if (!yaml_parser_initialize(&b.parser))
        return cv_status(CV_NO_MEMORY);
    if (cv_slice_starts_with(text,
                             "\xef\xbb\xbf")) /* a byte order mark, as Windows editors write */
        text = cv_slice(text.data + 3, text.len - 3);
    yaml_parser_set_input_string(&b.parser, text.data ? text.data : (const uint8_t *)"", text.len);
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    struct cv_status status = parse_all(&b);
    if (cv_is_ok(status) && !b.root) {
        b.root = calloc(1, sizeof *b.root);
        if (!b.root)
            status = cv_status(CV_NO_MEMORY);
    }
    yaml_parser_delete(&b.parser);
    for (unsigned i = 0; i < b.depth; i++)
        free(b.levels[i].key);
    if (!cv_is_ok(status))
        cv_yaml_tree_free(&b.root);
    *root = b.root;
    return status;
}
