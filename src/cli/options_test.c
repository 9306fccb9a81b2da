/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "cli/options.h"
#include "config/agent_config.h"

struct values {
    bool is_json;
    bool is_quiet;
    const char *server;
    struct cv_option_list tunnels;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, server, "server", 's', "URL", "The relay to go to."),
    CV_OPT_FLAG(struct values, is_json, "json", 'j', "Print JSON."),
    CV_OPT_FLAG(struct values, is_quiet, "quiet", 'q', "Say less."),
    CV_OPT_LIST(struct values, tunnels, "tunnel", 0, "NAME", "A tunnel; may be given again."),
    CV_OPT_SETTING("token_file", "token-file", 0, "FILE", "File with the token."),
    CV_OPT_SETTING(
        "tunnels[0].preset", "preset", 'p', "ollama|openai|none",
        "Headers, timers and rules that fit the service behind the tunnel, so that nobody "
        "has to know them by heart."),
    CV_OPT_HELP,
};

static const struct cv_command command = {
    .name = "http",
    .operands = "PORT",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "Publish an HTTP service.",
    .description = "Publishes a service.\n",
    .examples = "  culvert http 11434 --server wss://relay.example.org\n",
    .options = options,
    .option_count = sizeof options / sizeof *options,
};

static struct values values;
static struct cv_parsed parsed;
static struct cv_error error;

static struct cv_status parse(const char *const *words)
{
    int count = 0;
    while (words[count])
        count++;
    values = (struct values){0};
    error = (struct cv_error){0};
    return cv_command_parse(&command, count, words, &values, &parsed, &error);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void all_forms_are_read(void **state)
{
    (void)state;
    assert_ok(PARSE("--server", "ws://a", "11434", "-jq", "--tunnel=a", "--tunnel", "b"));
    assert_string_equal(values.server, "ws://a");
    assert_true(values.is_json && values.is_quiet);
    assert_int_equal(values.tunnels.count, 2);
    assert_string_equal(values.tunnels.items[1], "b");
    assert_int_equal(parsed.operand_count, 1);
    assert_string_equal(parsed.operands[0], "11434");
    assert_ok(PARSE("-s", "x", "-jpnone", "--", "-1"));
    assert_string_equal(values.server, "x");
    assert_string_equal(parsed.operands[0], "-1");
    assert_int_equal(parsed.override_count, 1);
    assert_string_equal(parsed.overrides[0].key, "tunnels[0].preset");
    assert_string_equal(parsed.overrides[0].value, "none");
    assert_string_equal(parsed.overrides[0].where, "--preset");
    assert_ok(PARSE("-", "--server="));
    assert_string_equal(parsed.operands[0], "-");
    assert_string_equal(values.server, "");
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *words[4];
        const char *says;
    } cases[] = {
        {{"--sever", "x", "1"}, "there is no option --sever; did you mean --server?"},
        {{"--toke-file=x", "1"}, "did you mean --token-file?"},
        {{"--xyzzy", "1"}, "there is no option --xyzzy"},
        {{"-x", "1"}, "there is no option -x"},
        {{"1", "--server"}, "--server needs a value: --server URL"},
        {{"1", "-s"}, "-s needs a value: -s URL"},
        {{"1", "--json=yes"}, "--json takes no value"},
        {{"--json"}, "something is missing: culvert http PORT"},
        {{"1", "2"}, "one word too many"},
        {{"--token", "hunter2", "1"}, "Set CULVERT_TOKEN or use --token-file"},
        {{"--token=hunter2", "1"}, "Set CULVERT_TOKEN or use --token-file"},
        {{"--password", "1"}, "other users can read command lines"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_status(parse(cases[i].words), CV_USAGE);
        if (!strstr(error.detail, cases[i].says))
            print_error("%s\n", error.detail);
        assert_non_null(strstr(error.detail, cases[i].says));
        assert_null(strstr(error.detail, "hunter2"));
    }
}

static void lists_are_capped(void **state)
{
    (void)state;
    const char *words[CV_OPTION_LIST_MAX + 3] = {"1"};
    for (size_t i = 1; i < CV_OPTION_LIST_MAX + 2; i++)
        words[i] = "--tunnel=a";
    assert_status(parse(words), CV_USAGE);
    for (size_t i = 1; i < CV_OPTION_LIST_MAX + 2; i++)
        words[i] = "--preset=none";
    assert_status(parse(words), CV_USAGE);
    for (size_t i = 1; i < CV_OPTION_LIST_MAX + 2; i++)
        words[i] = "1";
    assert_status(parse(words), CV_USAGE);
}

static void help_wins_and_teaches(void **state)
{
    (void)state;
    assert_ok(PARSE("--help", "--nonsense"));
    assert_true(parsed.wants_help);
    struct cv_buf out;
    cv_buf_init(&out, 16384);
    assert_ok(cv_command_help(&command, "culvert", &out));
    assert_ok(cv_buf_append_byte(&out, 0));
    const char *text = (const char *)cv_buf_head(&out);
    assert_non_null(strstr(text, "Usage: culvert http PORT [options]\n\nPublishes a service.\n"));
    assert_non_null(strstr(text, "  -s, --server URL            The relay to go to.\n"));
    assert_non_null(strstr(text, "      --token-file FILE       File with the token.\n"));
    assert_non_null(strstr(text, "  -p, --preset ollama|openai|none\n                              "
                                 "Headers, timers"));
    assert_non_null(strstr(text, "Examples:\n  culvert http 11434"));
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        assert_true(strcspn(line, "\n") <= 100);
    cv_buf_done(&out);
}

static void commands_are_found_and_suggested(void **state)
{
    (void)state;
    const struct cv_command *const all[] = {&command};
    assert_ptr_equal(cv_command_find(all, 1, "http"), &command);
    assert_null(cv_command_find(all, 1, "htp"));
    assert_string_equal(cv_command_suggest(all, 1, "htp"), "http");
    assert_null(cv_command_suggest(all, 1, "zzzz"));
    assert_null(cv_command_suggest(all, 1, ""));
}

static void a_table_cannot_ask_for_a_secret(void **state)
{
    (void)state;
    const struct cv_schema *const schemas[] = {&cv_relay_schema, &cv_agent_schema};
    assert_ok(cv_command_check(&command, schemas, 2, &error));
    static const struct cv_option bad[][2] = {
        {CV_OPT_TEXT(struct values, server, "token", 0, "TOKEN", "The token.")},
        {CV_OPT_SETTING("nothing", "nothing", 0, "X", "Nothing.")},
        {CV_OPT_SETTING("tunnels[0].nothing", "nothing", 0, "X", "Nothing.")},
        {CV_OPT_FLAG(struct values, is_json, "json", 'j', "")},
        {CV_OPT_TEXT(struct values, server, "server", 0, NULL, "The relay.")},
    };
    struct cv_command broken = command;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        broken.options = bad[i];
        broken.option_count = 1;
        assert_status(cv_command_check(&broken, schemas, 2, &error), CV_INVALID);
    }
    static const struct cv_option twice[] = {CV_OPT_HELP, CV_OPT_HELP};
    broken.options = twice;
    broken.option_count = 2;
    assert_status(cv_command_check(&broken, schemas, 2, &error), CV_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_are_read),
        cmocka_unit_test(wrong_usage_is_told),
        cmocka_unit_test(lists_are_capped),
        cmocka_unit_test(help_wins_and_teaches),
        cmocka_unit_test(commands_are_found_and_suggested),
        cmocka_unit_test(a_table_cannot_ask_for_a_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
