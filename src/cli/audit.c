/* SPDX-License-Identifier: MIT
 *
 * `culvert audit verify`: whether an audit log is as it was written.
 */
#include "base/json.h"
#include "cli/cli.h"
#include "telemetry/audit_verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct values {
    const char *noted;
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, noted, "noted", 0, "HASH",
                "This record must be there: a hash noted elsewhere before."),
    CV_OPT_FLAG(struct values, is_json, "json", 0, "Print the verdict as JSON."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_audit_command = {
    .name = "audit",
    .operands = "verify FILE...",
    .operand_min = 2,
    .operand_max = CV_OPTION_LIST_MAX,
    .summary = "Check an audit log",
    .description =
        "Reads the files of a relay's audit log, the oldest first, and says whether each record "
        "follows\n"
        "the one before it. At the first that was altered, taken out or moved it stops, names it, "
        "and\n"
        "ends with exit code 1. What was cut off or written anew at the very end shows only "
        "against a\n"
        "hash noted elsewhere: the relay logs one at each rotation and when it stops "
        "(audit_rotated,\n"
        "audit_closed), and this command prints one.\n",
    .examples = "  culvert audit verify audit.jsonl.1 audit.jsonl.2 audit.jsonl\n"
                "  culvert audit verify --noted 5fd1…c3 audit.jsonl\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

static const char *fault_name(enum cv_audit_fault fault)
{
    static const char *const names[] = {
        [CV_AUDIT_SOUND] = "sound",       [CV_AUDIT_ALTERED] = "altered",
        [CV_AUDIT_REPLACED] = "replaced", [CV_AUDIT_MISSING] = "missing",
        [CV_AUDIT_REORDERED] = "moved",   [CV_AUDIT_JUNK] = "no record",
    };
    return names[fault];
}

static void describe(const struct cv_audit_verdict *v, char *out, size_t cap)
{
    uint64_t seq = v->fault_seq, wanted = v->chain.seq + 1;
    switch (v->fault) {
    case CV_AUDIT_ALTERED:
        (void)snprintf(out, cap, "record %" PRIu64 " was altered", seq);
        break;
    case CV_AUDIT_REPLACED:
        (void)snprintf(out, cap,
                       "record %" PRIu64 " does not go on from what stands before it, which is "
                       "not what was written there",
                       seq);
        break;
    case CV_AUDIT_MISSING:
        (void)snprintf(out, cap,
                       "record %" PRIu64 " stands where record %" PRIu64
                       " should: what is between them was taken out or moved",
                       seq, wanted);
        break;
    case CV_AUDIT_REORDERED:
        (void)snprintf(out, cap,
                       "record %" PRIu64 " stands where record %" PRIu64
                       " should: it was moved or doubled",
                       seq, wanted);
        break;
    case CV_AUDIT_JUNK:
        (void)snprintf(out, cap, "record %" PRIu64 " should be here, and this is none", seq);
        break;
    case CV_AUDIT_SOUND:
        (void)snprintf(out, cap, "%s", "the chain is whole");
        break;
    }
}

static void print_text(const struct cv_audit_verdict *v, const char *path, const char *hash)
{
    char text[256];
    describe(v, text, sizeof text);
    if (v->fault != CV_AUDIT_SOUND)
        (void)printf("%s:%" PRIu64 ": %s\n", path, v->fault_line, text);
    else if (!v->records)
        (void)printf("%s: no records\n", path);
    else
        (void)printf("%s: %" PRIu64 " records, %" PRIu64 " to %" PRIu64 ", %s\n", path, v->records,
                     v->first_seq, v->chain.seq, text);
    if (v->fault == CV_AUDIT_SOUND && v->first_seq > 1)
        (void)printf("records before %" PRIu64 " are in files that were not given\n", v->first_seq);
    if (v->cut)
        (void)printf("cut by the end of a process and told of behind it: %" PRIu64 "\n", v->cut);
    if (v->is_end_cut)
        (void)printf("the last line is not whole: the relay was killed there, or is writing\n");
    if (v->fault == CV_AUDIT_SOUND && v->wanted && !v->is_wanted_seen)
        (void)printf("the noted record is not there: the end was cut off or written anew\n");
    if (v->records)
        (void)printf("last good record: %" PRIu64 ", %s, hash %s\n", v->chain.seq, v->last_time,
                     hash);
}

static void print_json(const struct cv_audit_verdict *v, const char *path, const char *hash,
                       bool is_good)
{
    char text[256];
    describe(v, text, sizeof text);
    json_t *object = json_pack("{s:b, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b}",
                               "good", is_good, "fault", fault_name(v->fault), "message", text,
                               "file", path, "line", (json_int_t)v->fault_line, "seq",
                               (json_int_t)v->fault_seq, "records", (json_int_t)v->records, "first",
                               (json_int_t)v->first_seq, "last", (json_int_t)v->chain.seq, "cut",
                               (json_int_t)v->cut, "hash", hash, "endIsCut", v->is_end_cut);
    char *line = object ? cv_json_text(object) : NULL;
    if (line)
        (void)printf("%s\n", line);
    free(line);
    json_decref(object);
}

int cv_cli_audit(int argc, const char *const *argv)
{
    struct values given = {0};
    struct cv_parsed parsed;
    int exit_code;
    uint8_t noted[CV_SHA256_LEN];
    if (!cv_cli_parse(&cv_cli_audit_command, argc, argv, &given, &parsed, &exit_code))
        return exit_code;
    if (strcmp(parsed.operands[0], "verify") != 0) {
        (void)fprintf(stderr, "culvert audit: `verify` is needed\n");
        return CV_EXIT_USAGE;
    }
    if (given.noted && !cv_hex_decode(cv_slice_str(given.noted), noted, sizeof noted)) {
        (void)fprintf(stderr, "culvert audit: --noted is not a hash of 64 hex digits\n");
        return CV_EXIT_USAGE;
    }
    struct cv_audit_verdict verdict = {.wanted = given.noted ? noted : NULL};
    const char *path = NULL;
    for (size_t i = 1; i < parsed.operand_count && verdict.fault == CV_AUDIT_SOUND; i++) {
        struct cv_error error = {0};
        path = parsed.operands[i];
        struct cv_status status = cv_audit_verify(path, &verdict, &error);
        if (!cv_is_ok(status)) {
            cv_cli_complain(status.id, &error);
            return CV_EXIT_FAILED;
        }
    }
    char hash[2 * CV_SHA256_LEN + 1];
    cv_hex_encode(cv_slice(verdict.chain.hash, CV_SHA256_LEN), hash);
    bool is_good = verdict.fault == CV_AUDIT_SOUND && (!verdict.wanted || verdict.is_wanted_seen);
    if (given.is_json)
        print_json(&verdict, path, hash, is_good);
    else
        print_text(&verdict, path, hash);
    return cv_cli_end_output(is_good ? CV_EXIT_OK : CV_EXIT_FAILED);
}
