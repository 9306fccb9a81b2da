/* SPDX-License-Identifier: MIT
 *
 * Prints docs/configuration.md from the tables of settings; with a file's name as argument checks
 * that the file says the same, and fails if not. Run by the build's tests.
 */
#include "base/buf.h"
#include "config/agent_config.h"

static const char intro[] =
    "# Configuration\n"
    "\n"
    "<!-- Made from the tables in src/config by the program config_doc; change it there. -->\n"
    "\n"
    "Both programs read a YAML file given with `-c`. Every setting can also be given in the\n"
    "environment, as `CULVERT_` and its key in capitals with `_` for `.`; some have an "
    "established\n"
    "name besides. Flags go before the environment, the environment before the file, the file\n"
    "before the defaults. An empty variable counts as not set.\n"
    "\n"
    "- Durations have a unit: `500ms`, `30s`, `5m`, `2h`, `1d`. In the environment a bare number "
    "is\n"
    "  milliseconds.\n"
    "- Sizes are in bytes or have a unit of 1024: `64KiB`, `1MiB`, `2GiB`, `1TiB`.\n"
    "- Lists are YAML lists; a list of one may be written as a single value. In the environment\n"
    "  items are separated by commas.\n"
    "- A dot in a key is a section: `ws.ping_interval` is `ping_interval:` under `ws:`.\n"
    "\n"
    "`culvert config check -c FILE` names every mistake with its file, line, key, value and what\n"
    "is allowed. `culvert config show -c FILE` prints what holds, and where each value comes "
    "from;\n"
    "secrets are masked. A file has at most 1 MiB; YAML aliases, anchors and tags are refused.\n"
    "\n";

static struct cv_status write_all(struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, intro));
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, "## Relay: `culvert server`\n\n"));
    CV_RETURN_IF_ERROR(cv_settings_doc(&cv_relay_schema, out));
    CV_RETURN_IF_ERROR(
        cv_buf_append_str(out, "## Agent: `culvert agent`, `http`, `tcp`, `forward`, `stdio`\n\n"));
    return cv_settings_doc(&cv_agent_schema, out);
}

static bool is_same(const char *path, struct cv_slice want)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool same = true;
    for (size_t i = 0; i <= want.len && same; i++)
        same = fgetc(file) == (i < want.len ? (int)want.data[i] : EOF);
    (void)fclose(file);
    return same;
}

int main(int argc, char **argv)
{
    struct cv_buf out;
    cv_buf_init(&out, 1024 * 1024);
    bool is_done = cv_is_ok(write_all(&out));
    struct cv_slice text = cv_buf_slice(&out);
    if (is_done && argc == 2) {
        is_done = is_same(argv[1], text);
        if (!is_done)
            (void)fprintf(stderr, "%s is not what the tables say: write it anew with config_doc\n",
                          argv[1]);
    } else if (is_done) {
        is_done = text.len > 0 && fwrite(text.data, 1, text.len, stdout) == text.len;
    }
    cv_buf_done(&out);
    return is_done ? 0 : 1;
}
