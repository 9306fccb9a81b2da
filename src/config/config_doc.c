/* SPDX-License-Identifier: MIT
 *
 * Prints docs/configuration.md from the tables of settings; with a file's name as argument checks
 * that the file says the same, and fails if not. Run by the build's tests.
 */
#include "base/print_doc.h"
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
    "`culvert config set KEY VALUE -c FILE` and `reset KEY` change one key and leave the rest of "
    "the\n"
    "file as it is, `profiles NAME` the settings that fit a kind of network, `edit` opens an "
    "editor;\n"
    "each checks the file before it is replaced, and tells agents that run with it.\n"
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

int main(int argc, char **argv)
{
    return cv_doc_main(argc, argv, "config_doc", write_all);
}
