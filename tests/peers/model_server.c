/* SPDX-License-Identifier: MIT
 *
 * The model of `culvert demo` as a program, for suites that want a service whose timing is known:
 *
 *     model_server [HOST:PORT [MILLISECONDS]]
 *
 * Listens on 127.0.0.1:0 unless told otherwise, sends a token every 30 ms unless told otherwise.
 * "listening on port PORT" is the first line on stdout. SIGTERM and SIGINT end it.
 */
#include "cli/model_server.h"
#include "net/net.h"

#include <signal.h>

static void on_signal(void *arg, int signo)
{
    struct cv_worker *worker = arg;
    (void)signo;
    cv_worker_stop(worker);
}

static struct cv_status serve(struct cv_worker *worker, struct cv_model_server **server,
                              const struct cv_model_server_options *options, struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_worker_on_signal(worker, SIGTERM, on_signal, worker));
    CV_RETURN_IF_ERROR(cv_worker_on_signal(worker, SIGINT, on_signal, worker));
    CV_RETURN_IF_ERROR(cv_model_server_new(worker, options, server, error));
    (void)printf("listening on port %u\n", cv_model_server_port(*server));
    (void)fflush(stdout);
    cv_worker_run(worker);
    return cv_ok();
}

int main(int argc, char **argv)
{
    struct cv_model_server_options options = {
        .listen = argc > 1 ? argv[1] : "127.0.0.1:0",
        .token_interval_ms = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 30,
    };
    struct cv_worker *worker = NULL;
    struct cv_model_server *server = NULL;
    struct cv_error error = {0};
    struct cv_status status = cv_net_init();
    if (cv_is_ok(status))
        status = cv_worker_new(0, &worker, &error);
    if (cv_is_ok(status))
        status = serve(worker, &server, &options, &error);
    cv_worker_free(&worker);
    cv_model_server_free(&server);
    if (!cv_is_ok(status))
        (void)fprintf(stderr, "model_server: %s: %s\n", cv_status_text(status.id), error.detail);
    return cv_is_ok(status) ? 0 : 1;
}
