/* SPDX-License-Identifier: MIT */
#include "relay/share.h"

#include "auth/identity.h"
#include "config/relay_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUBJECT = 's', GROUP = 'g' };

static const char subject_word[] = "sub:", group_word[] = "group:";

enum cv_sharing cv_sharing_of(const struct cv_relay_config *config)
{
    if (strcmp(config->sharing, "public") == 0)
        return CV_SHARING_PUBLIC;
    return strcmp(config->sharing, "users") == 0 ? CV_SHARING_USERS : CV_SHARING_NONE;
}

/* Which kind it is; *name is what stands behind the word for that. */
static char kind_of(struct cv_slice text, struct cv_slice *name)
{
    *name = text;
    bool is_group = cv_slice_starts_with(text, group_word);
    size_t len = is_group                                   ? sizeof group_word - 1
                 : cv_slice_starts_with(text, subject_word) ? sizeof subject_word - 1
                                                            : 0;
    *name = cv_slice(text.data + len, text.len - len);
    return is_group ? GROUP : SUBJECT;
}

static struct cv_status parse_guests(const json_t *list, struct cv_share *share,
                                     struct cv_error *error)
{
    size_t count = json_array_size(list), len = 0, i;
    const json_t *item;
    if (!json_is_array(list) || count > CV_SHARE_GUESTS_MAX)
        return cv_fail(error, CV_INVALID, "share is a list of at most %d users and groups",
                       CV_SHARE_GUESTS_MAX);
    json_array_foreach(list, i, item)
    {
        len += json_string_length(item) + 2;
    }
    share->guests = calloc(1, len + 1);
    if (!share->guests)
        return cv_status(CV_NO_MEMORY);
    json_array_foreach(list, i, item)
    {
        struct cv_slice name;
        char kind = kind_of(cv_slice(json_string_value(item), json_string_length(item)), &name);
        if (!cv_identity_text_is_valid(name))
            return cv_fail(error, CV_INVALID,
                           "entry %zu of share is not SUBJECT, sub:SUBJECT or group:NAME, of 1 to "
                           "%d bytes without control characters",
                           i + 1, CV_IDENTITY_MAX_TEXT);
        share->guests[share->guests_len] = kind;
        memcpy(share->guests + share->guests_len + 1, name.data, name.len);
        share->guests_len += name.len + 2;
        share->guest_count++;
    }
    return cv_ok();
}

struct cv_status cv_share_parse(const json_t *object, struct cv_share *share,
                                struct cv_error *error)
{
    const json_t *is_public = json_object_get(object, "public");
    const json_t *list = json_object_get(object, "share");
    if (is_public && !json_is_boolean(is_public))
        return cv_fail(error, CV_INVALID, "public is true or false");
    share->is_public = json_is_true(is_public);
    return list ? parse_guests(list, share, error) : cv_ok();
}

void cv_share_done(struct cv_share *share)
{
    free(share->guests);
    *share = (struct cv_share){0};
}

/* The next entry, with its kind before it; NULL behind the last. */
static const char *next_guest(const struct cv_share *share, const char *guest)
{
    const char *next = guest ? guest + strlen(guest) + 1 : share->guests;
    return share->guests_len && next < share->guests + share->guests_len ? next : NULL;
}

/* Of subjects those alone are marked that would be taken for something else. */
static json_t *guest_text(const char *guest)
{
    char text[CV_IDENTITY_MAX_TEXT + sizeof group_word];
    struct cv_slice name;
    const char *word = "";
    if (guest[0] == GROUP)
        word = group_word;
    else if (kind_of(cv_slice_str(guest + 1), &name) == GROUP || name.len < strlen(guest + 1))
        word = subject_word;
    (void)snprintf(text, sizeof text, "%s%s", word, guest + 1);
    return json_string(text);
}

json_t *cv_share_list(const struct cv_share *share)
{
    json_t *list = json_array();
    for (const char *at = NULL; list && (at = next_guest(share, at));)
        if (json_array_append_new(list, guest_text(at)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

bool cv_share_is_any(const struct cv_share *share)
{
    return share->is_public || share->guest_count;
}

bool cv_share_is_same(const struct cv_share *a, const struct cv_share *b)
{
    return a->is_public == b->is_public && a->guests_len == b->guests_len &&
           (a->guests_len == 0 || memcmp(a->guests, b->guests, a->guests_len) == 0);
}

enum cv_sharing cv_share_needs(const struct cv_share *share)
{
    if (share->is_public)
        return CV_SHARING_PUBLIC;
    return share->guest_count ? CV_SHARING_USERS : CV_SHARING_NONE;
}

bool cv_share_admits(const struct cv_share *share, const struct cv_guest *guest)
{
    const struct cv_identity *identity = guest->identity;
    if (share->is_public && guest->sharing == CV_SHARING_PUBLIC)
        return true;
    if (guest->sharing == CV_SHARING_NONE || identity->is_anonymous)
        return false;
    for (const char *at = NULL; (at = next_guest(share, at));)
        if (at[0] == SUBJECT ? strcmp(at + 1, identity->subject) == 0
                             : cv_identity_is_in_group(identity, at + 1))
            return true;
    return false;
}
