/* SPDX-License-Identifier: MIT
 *
 * Happy path: load (libyaml's tree with its marks) → find (as far as sections go) → the bytes that
 * are in the way are cut, the new ones written there.
 */
#include "config/yaml_edit.h"

#include "config/settings.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { INDENT = 2 };

struct editor {
    struct cv_slice text;
    yaml_document_t document;
};

/* Where a key is, or would be. */
struct place {
    yaml_node_t *maps[CV_CONFIG_DEPTH_MAX];       /* from the root to the one that has it */
    yaml_node_pair_t *pairs[CV_CONFIG_DEPTH_MAX]; /* that lead on; the last may be missing */
    size_t depth;                                 /* maps */
    const char *rest; /* of the key, below the last pair; "" when the key is there */
};

/* What is cut out, and what takes its place. */
struct change {
    size_t from, to;
    struct cv_buf text;
};

/* ---- places in the text ---- */

/* libyaml counts characters. */
static size_t offset_of(const struct editor *e, yaml_mark_t mark)
{
    size_t at = 0;
    for (size_t seen = 0; at < e->text.len; at++) {
        bool begins = (e->text.data[at] & 0xc0) != 0x80;
        if (begins && seen++ == mark.index)
            break;
    }
    return at;
}

static size_t line_end(const struct editor *e, size_t at)
{
    while (at < e->text.len && e->text.data[at] != '\n')
        at++;
    return at > 0 && at < e->text.len && e->text.data[at - 1] == '\r' ? at - 1 : at;
}

static size_t line_begin(const struct editor *e, size_t at)
{
    while (at > 0 && e->text.data[at - 1] != '\n')
        at--;
    return at;
}

static yaml_node_t *node_of(struct editor *e, int id)
{
    return yaml_document_get_node(&e->document, id);
}

static bool is_flow(const yaml_node_t *node)
{
    return (node->type == YAML_MAPPING_NODE &&
            node->data.mapping.style == YAML_FLOW_MAPPING_STYLE) ||
           (node->type == YAML_SEQUENCE_NODE &&
            node->data.sequence.style == YAML_FLOW_SEQUENCE_STYLE);
}

static size_t pair_count(const yaml_node_t *map)
{
    return (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start);
}

/* Behind the last byte. A block's own end mark is at the next token, wherever that is. */
static size_t end_of(struct editor *e, yaml_node_t *node)
{
    /* With aliases a node may be within itself; settings files have none. */
    for (unsigned depth = 0;; depth++) {
        if (depth > 2 * CV_CONFIG_DEPTH_MAX)
            return offset_of(e, node->end_mark);
        if (node->type == YAML_MAPPING_NODE && !is_flow(node) && pair_count(node))
            node = node_of(e, node->data.mapping.pairs.top[-1].value);
        else if (node->type == YAML_SEQUENCE_NODE && !is_flow(node) &&
                 node->data.sequence.items.top > node->data.sequence.items.start)
            node = node_of(e, node->data.sequence.items.top[-1]);
        else
            return offset_of(e, node->end_mark);
    }
}

static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0 &&
           node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* ---- finding ---- */

static bool is_key(const yaml_node_t *node, const char *text, size_t len)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == len &&
           memcmp(node->data.scalar.value, text, len) == 0;
}

/* A name and the section of a longer one: "a" of "a.b". Names may have dots in the file as well. */
static yaml_node_pair_t *pair_for(struct editor *e, const yaml_node_t *map, const char **rest)
{
    const char *key = *rest;
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *name = node_of(e, p->key);
        size_t len = strlen(key);
        if (is_key(name, key, len)) {
            *rest = key + len;
            return p;
        }
        for (const char *dot = strchr(key, '.'); dot; dot = strchr(dot + 1, '.'))
            if (is_key(name, key, (size_t)(dot - key))) {
                *rest = dot + 1;
                return p;
            }
    }
    return NULL;
}

static struct cv_status find(struct editor *e, const char *key, struct place *place,
                             struct cv_error *error)
{
    yaml_node_t *node = yaml_document_get_root_node(&e->document);
    *place = (struct place){.rest = key};
    while (node && place->rest[0] && !is_null(node)) {
        if (node->type != YAML_MAPPING_NODE)
            return cv_fail(error, CV_CONFIG, "line %zu: there is a value where a section must be",
                           node->start_mark.line + 1);
        if (place->depth == CV_CONFIG_DEPTH_MAX)
            return cv_fail(error, CV_CONFIG, "too deep");
        yaml_node_pair_t *pair = pair_for(e, node, &place->rest);
        place->maps[place->depth] = node;
        place->pairs[place->depth++] = pair;
        if (!pair)
            break;
        node = node_of(e, pair->value);
    }
    return cv_ok();
}

/* ---- writing ---- */

/* "a:\n  b: value" for "a.b", with that many spaces in front of each line but the first. */
static struct cv_status put_block(struct cv_buf *out, size_t indent, const char *key,
                                  struct cv_slice value)
{
    const char *dot;
    while ((dot = strchr(key, '.'))) {
        indent += INDENT;
        CV_RETURN_IF_ERROR(
            cv_buf_printf(out, "%.*s:\n%*s", (int)(dot - key), key, (int)indent, ""));
        key = dot + 1;
    }
    return cv_buf_printf(out, "%s: %.*s", key, (int)value.len, (const char *)value.data);
}

/* "a: {b: value}" */
static struct cv_status put_flow(struct cv_buf *out, const char *key, struct cv_slice value)
{
    const char *dot;
    size_t open = 0;
    for (; (dot = strchr(key, '.')); open++) {
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "%.*s: {", (int)(dot - key), key));
        key = dot + 1;
    }
    CV_RETURN_IF_ERROR(
        cv_buf_printf(out, "%s: %.*s", key, (int)value.len, (const char *)value.data));
    while (open-- > 0)
        CV_RETURN_IF_ERROR(cv_buf_append_byte(out, '}'));
    return cv_ok();
}

static struct cv_status replace_value(struct editor *e, const yaml_node_pair_t *pair,
                                      struct cv_slice value, struct change *change)
{
    yaml_node_t *node = node_of(e, pair->value);
    change->from = offset_of(e, node->start_mark);
    change->to = end_of(e, node);
    if (is_null(node) || (node->type != YAML_SCALAR_NODE && !is_flow(node))) {
        /* From the colon on: a list may begin on a line of its own. */
        size_t at = offset_of(e, node_of(e, pair->key)->end_mark);
        while (at < e->text.len && e->text.data[at] != ':')
            at++;
        change->from = at + 1;
        if (is_null(node))
            change->to = change->from;
        CV_RETURN_IF_ERROR(cv_buf_append_byte(&change->text, ' '));
    }
    return cv_buf_append_slice(&change->text, value);
}

static struct cv_status add_pair(struct editor *e, const struct place *place, struct cv_slice value,
                                 struct change *change)
{
    yaml_node_t *map = place->maps[place->depth - 1];
    const yaml_node_pair_t *pair = place->pairs[place->depth - 1];
    size_t indent = map->start_mark.column;
    size_t at = end_of(e, map);
    if (pair) { /* the section is there, without anything in it */
        at = offset_of(e, node_of(e, pair->key)->end_mark);
        indent += INDENT;
    } else if (is_flow(map)) {
        size_t count = pair_count(map);
        at = count ? end_of(e, node_of(e, map->data.mapping.pairs.top[-1].value))
                   : offset_of(e, map->start_mark) + 1;
        change->from = change->to = at;
        if (count)
            CV_RETURN_IF_ERROR(cv_buf_append_str(&change->text, ", "));
        return put_flow(&change->text, place->rest, value);
    }
    change->from = change->to = line_end(e, at);
    CV_RETURN_IF_ERROR(cv_buf_printf(&change->text, "\n%*s", (int)indent, ""));
    return put_block(&change->text, indent, place->rest, value);
}

/* A file without any settings: behind its comments. */
static struct cv_status add_first(struct editor *e, const char *key, struct cv_slice value,
                                  struct change *change)
{
    change->from = change->to = e->text.len;
    if (e->text.len && e->text.data[e->text.len - 1] != '\n')
        CV_RETURN_IF_ERROR(cv_buf_append_byte(&change->text, '\n'));
    CV_RETURN_IF_ERROR(put_block(&change->text, 0, key, value));
    return cv_buf_append_byte(&change->text, '\n');
}

static struct cv_status remove_pair(struct editor *e, const struct place *place,
                                    struct change *change, struct cv_error *error)
{
    size_t depth = place->depth;
    while (depth > 1 && pair_count(place->maps[depth - 1]) == 1)
        depth--;
    yaml_node_t *map = place->maps[depth - 1];
    yaml_node_pair_t *pair = place->pairs[depth - 1];
    change->from = offset_of(e, node_of(e, pair->key)->start_mark);
    change->to = end_of(e, node_of(e, pair->value));
    if (is_null(node_of(e, pair->value)))
        change->to = line_end(e, change->from);
    if (is_flow(map)) {
        if (pair > map->data.mapping.pairs.start)
            change->from = end_of(e, node_of(e, pair[-1].value));
        else if (pair + 1 < map->data.mapping.pairs.top)
            change->to = offset_of(e, node_of(e, pair[1].key)->start_mark);
        return cv_ok();
    }
    size_t begin = line_begin(e, change->from);
    for (size_t i = begin; i < change->from; i++)
        if (e->text.data[i] != ' ')
            return cv_fail(error, CV_CONFIG, "the line has more in it than this key");
    change->from = begin;
    change->to = line_end(e, change->to);
    while (change->to < e->text.len && e->text.data[change->to] != '\n')
        change->to++;
    if (change->to < e->text.len)
        change->to++;
    return cv_ok();
}

/* ---- life ---- */

static struct cv_status load(struct editor *e, struct cv_slice text, struct cv_error *error)
{
    yaml_parser_t parser;
    e->text = text;
    if (!yaml_parser_initialize(&parser))
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    yaml_parser_set_input_string(&parser, text.data ? text.data : (const unsigned char *)"",
                                 text.len);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    bool is_good = yaml_parser_load(&parser, &e->document);
    struct cv_status status = cv_ok();
    if (!is_good && parser.error == YAML_MEMORY_ERROR)
        status = cv_fail(error, CV_NO_MEMORY, "out of memory");
    else if (!is_good)
        status = cv_fail(error, CV_CONFIG, "line %zu: %s", parser.problem_mark.line + 1,
                         parser.problem ? parser.problem : "no YAML");
    yaml_parser_delete(&parser);
    return status;
}

static struct cv_status put_change(const struct editor *e, const struct change *change,
                                   struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(cv_buf_append(out, e->text.data, change->from));
    CV_RETURN_IF_ERROR(cv_buf_append_slice(out, cv_buf_slice(&change->text)));
    return cv_buf_append(out, e->text.data + change->to, e->text.len - change->to);
}

/* `value` NULL: removes. */
static struct cv_status edit(struct cv_slice text, const char *key, const struct cv_slice *value,
                             struct cv_buf *out, struct cv_error *error)
{
    struct editor e;
    struct place place;
    struct change change = {0};
    CV_RETURN_IF_ERROR(load(&e, text, error));
    cv_buf_init(&change.text, 2 * CV_CONFIG_VALUE_MAX + 1024);
    struct cv_status status = find(&e, key, &place, error);
    bool is_there = place.depth && place.pairs[place.depth - 1] && !place.rest[0];
    if (!cv_is_ok(status))
        ;
    else if (!value)
        status = is_there ? remove_pair(&e, &place, &change, error) : cv_ok();
    else if (is_there)
        status = replace_value(&e, place.pairs[place.depth - 1], *value, &change);
    else if (place.depth)
        status = add_pair(&e, &place, *value, &change);
    else
        status = add_first(&e, key, *value, &change);
    if (cv_is_ok(status))
        status = put_change(&e, &change, out);
    cv_buf_done(&change.text);
    yaml_document_delete(&e.document);
    return status;
}

struct cv_status cv_yaml_edit_set(struct cv_slice text, const char *key, struct cv_slice value,
                                  struct cv_buf *out, struct cv_error *error)
{
    return edit(text, key, &value, out, error);
}

struct cv_status cv_yaml_edit_remove(struct cv_slice text, const char *key, struct cv_buf *out,
                                     struct cv_error *error)
{
    return edit(text, key, NULL, out, error);
}
