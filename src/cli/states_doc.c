/* SPDX-License-Identifier: MIT
 *
 * Prints docs/STATES.md from the tables that the state machines run on; with a file's name as
 * argument checks that the file says the same, and fails if not. Run by the build's tests.
 */
#include "agent/uplink.h"
#include "base/fsm.h"
#include "base/print_doc.h"
#include "net/conn.h"
#include "proto/ssh/ssh.h"
#include "proto/ws/ws.h"
#include "relay/consumer.h"
#include "telemetry/incident.h"
#include "transport/link.h"

struct chapter {
    const struct cv_fsm_def *def;
    const char *title;
    const char *about;
};

static const struct chapter chapters[] = {
    {&cv_uplink_states, "Uplink",
     "What the agent does for one link (src/agent/uplink.c): reaching the relay, keeping the link, "
     "coming back.\n`culvert status` shows it."},
    {&cv_link_states, "Link",
     "A link, the same on agent and relay (src/transport/link.c). While it is detached its streams "
     "stay."},
    {&cv_consumer_states, "Consumer",
     "A consumer's connection at the relay (src/relay/consumer.c)."},
    {&cv_conn_states, "Connection", "A socket (src/net/conn.c). Without TLS it begins in `open`."},
    {&cv_ws_states, "WebSocket", "Frames on a socket (src/proto/ws/ws.c)."},
    {&cv_ssh_phases, "SSH session", "src/proto/ssh/transport.c."},
    {&cv_ssh_stages, "SSH key exchange",
     "The first one and each later one, within a session (src/proto/ssh/transport.c)."},
    {&cv_ssh_channel_states, "SSH channel",
     "A stream's lower half (src/proto/ssh/channel.c). What the peer asks for begins in "
     "`requested`, what we\nask for in `opening`."},
    {&cv_incident_states, "Incident",
     "Something that operators are told of (src/telemetry/incident.c, docs/incidents.md). One that "
     "was nothing is\nforgotten."},
};

static const char intro[] =
    "# States\n"
    "\n"
    "<!-- Made from the tables in src by the program states_doc; change it there. -->\n"
    "\n"
    "Each lifecycle is a table in the code (base/fsm.h): which state may follow which, and on what "
    "event.\n"
    "Nothing else changes a state, and a step that is not in the table ends the process, since it "
    "is our\n"
    "own mistake. LIFECYCLE.md tells how they play together.\n";

/* Mermaid's names have no spaces. */
static struct cv_status write_id(struct cv_buf *out, const char *name)
{
    for (; *name; name++)
        CV_RETURN_IF_ERROR(cv_buf_append_byte(out, (uint8_t)(*name == ' ' ? '_' : *name)));
    return cv_ok();
}

static bool is_last(const struct cv_fsm_def *def, unsigned state)
{
    for (unsigned i = 0; i < def->step_count; i++)
        if (def->steps[i].from == state)
            return false;
    return true;
}

/* A colon ends nothing in an event, a semicolon would. */
static struct cv_status write_step(struct cv_buf *out, const struct cv_fsm_def *def,
                                   const struct cv_fsm_step *step)
{
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, "    "));
    CV_RETURN_IF_ERROR(write_id(out, def->states[step->from]));
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, " --> "));
    CV_RETURN_IF_ERROR(write_id(out, def->states[step->to]));
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, " : "));
    for (const char *at = step->event; *at; at++)
        CV_RETURN_IF_ERROR(
            cv_buf_append_byte(out, (uint8_t)(*at == ';' || *at == ':' ? ',' : *at)));
    return cv_buf_append_byte(out, '\n');
}

static struct cv_status write_chapter(struct cv_buf *out, const struct chapter *chapter)
{
    const struct cv_fsm_def *def = chapter->def;
    CV_RETURN_IF_ERROR(cv_buf_printf(out, "\n## %s\n\n%s\n\n```mermaid\nstateDiagram-v2\n",
                                     chapter->title, chapter->about));
    for (unsigned i = 0; i < def->count; i++) {
        if (!strchr(def->states[i], ' '))
            continue;
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "    state \"%s\" as ", def->states[i]));
        CV_RETURN_IF_ERROR(write_id(out, def->states[i]));
        CV_RETURN_IF_ERROR(cv_buf_append_byte(out, '\n'));
    }
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, "    [*] --> "));
    CV_RETURN_IF_ERROR(write_id(out, def->states[0]));
    CV_RETURN_IF_ERROR(cv_buf_append_byte(out, '\n'));
    for (unsigned i = 0; i < def->step_count; i++)
        CV_RETURN_IF_ERROR(write_step(out, def, &def->steps[i]));
    for (unsigned i = 0; i < def->count; i++) {
        if (!is_last(def, i))
            continue;
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "    "));
        CV_RETURN_IF_ERROR(write_id(out, def->states[i]));
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, " --> [*]\n"));
    }
    return cv_buf_append_str(out, "```\n");
}

static struct cv_status write_all(struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, intro));
    for (size_t i = 0; i < sizeof chapters / sizeof chapters[0]; i++)
        CV_RETURN_IF_ERROR(write_chapter(out, &chapters[i]));
    return cv_ok();
}

int main(int argc, char **argv)
{
    return cv_doc_main(argc, argv, "states_doc", write_all);
}
