/* SPDX-License-Identifier: MIT
 *
 * A YAML file as a tree that still knows its lines, so that every mistake in it can be named, not
 * only the first. Parsing is libyaml's; what a settings file has no use for is refused: aliases
 * (which can grow without bound), tags, several documents, deep nesting, keys that are no plain
 * text, a key given twice.
 * The tree owns its strings. Text that is not valid is told by line. Any thread.
 */
#ifndef CV_CONFIG_YAML_TREE_H
#define CV_CONFIG_YAML_TREE_H

#include "base/slice.h"
#include "config/settings.h"

#define CV_YAML_NODES_MAX 5000

enum cv_yaml_kind { CV_YAML_NULL, CV_YAML_SCALAR, CV_YAML_MAP, CV_YAML_LIST };

struct cv_yaml_node {
    enum cv_yaml_kind kind;
    unsigned line;              /* from 1 */
    char *key;                  /* in a map, else NULL */
    char *text;                 /* of a scalar, without NUL bytes inside */
    struct cv_yaml_node *first; /* of a map or list */
    struct cv_yaml_node *next;
};

/* Gives the root in *root: a map, or CV_YAML_NULL for a file without content. CV_CONFIG: the text
 * is refused as a whole and *line and `why` (cap bytes) say where and for what; NULL in *root.
 * CV_NO_MEMORY. A key given twice does not refuse the text: it goes to `problems`, the first one
 * counts. */
struct cv_status cv_yaml_tree_parse(struct cv_slice text, const char *name,
                                    struct cv_problems *problems, struct cv_yaml_node **root,
                                    unsigned *line, char *why, size_t cap);
void cv_yaml_tree_free(struct cv_yaml_node **root);

#endif
