/* SPDX-License-Identifier: MIT
 *
 * User authentication (RFC 4252) by method `none`: who the peer is was settled by the WebSocket
 * upgrade below. Every refusal is the same message, whatever was asked.
 */
#include "proto/ssh/transport_private.h"

static const char service_auth[] = "ssh-userauth";
static const char service_connection[] = "ssh-connection";

static struct cv_status established(struct cv_ssh_transport *t)
{
    cv_fsm_set(&t->phase, PHASE_OPEN);
    t->noise = 0;
    struct cv_status status = cv_ssh_transport_zlib_send(t);
    if (cv_is_ok(status))
        status = cv_ssh_transport_zlib_recv(t);
    return cv_is_ok(status) ? status : cv_ssh_transport_fail(t, status.id, "no compression");
}

struct cv_status cv_ssh_transport_auth_start(struct cv_ssh_transport *t)
{
    uint8_t payload[192];
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_SERVICE_REQUEST);
    cv_ssh_write_str(&w, service_auth);
    CV_RETURN_IF_ERROR(cv_ssh_transport_send_own(t, cv_ssh_written(&w)));
    w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_USERAUTH_REQUEST);
    cv_ssh_write_str(&w, t->user);
    cv_ssh_write_str(&w, service_connection);
    cv_ssh_write_str(&w, "none");
    return cv_ssh_transport_send_own(t, cv_ssh_written(&w));
}

static struct cv_status on_service_request(struct cv_ssh_transport *t, struct cv_ssh_reader *r)
{
    struct cv_slice service;
    uint8_t payload[32];
    if (!cv_ssh_read_string(r, &service) || !cv_ssh_reader_is_done(r))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "malformed service request");
    if (!cv_slice_is(service, service_auth) || t->has_service) {
        cv_ssh_transport_disconnect(t, CV_SSH_DISCONNECT_SERVICE_NOT_AVAILABLE,
                                    "service not available");
        return cv_status(CV_EOF);
    }
    t->has_service = true;
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_SERVICE_ACCEPT);
    cv_ssh_write_str(&w, service_auth);
    return cv_ssh_transport_send_own(t, cv_ssh_written(&w));
}

static struct cv_status on_request(struct cv_ssh_transport *t, struct cv_ssh_reader *r,
                                   bool *is_established)
{
    static const uint8_t success[] = {CV_SSH_MSG_USERAUTH_SUCCESS};
    /* No method that can continue, no partial success. */
    static const uint8_t failure[] = {CV_SSH_MSG_USERAUTH_FAILURE, 0, 0, 0, 0, 0};
    struct cv_slice user, service, method;
    /* §5.1: requests after the success are ignored in silence. */
    if (cv_ssh_transport_is(t, PHASE_OPEN))
        return cv_ssh_transport_noise(t);
    if (!t->has_service)
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "authentication without its service");
    /* Method-specific fields may follow. */
    if (!cv_ssh_read_string(r, &user) || !cv_ssh_read_string(r, &service) ||
        !cv_ssh_read_string(r, &method))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "malformed authentication request");
    if (cv_slice_is(method, "none") && r->rest.len == 0 && user.len <= VERSION_MAX &&
        cv_slice_is(service, service_connection)) {
        CV_RETURN_IF_ERROR(cv_ssh_transport_send_own(t, cv_slice(success, sizeof success)));
        *is_established = true;
        return established(t);
    }
    if (++t->auth_tries >= t->auth_tries_max)
        return cv_ssh_transport_fail(t, CV_AUTH_FAILED, "too many authentication tries");
    return cv_ssh_transport_send_own(t, cv_slice(failure, sizeof failure));
}

static struct cv_status server_message(struct cv_ssh_transport *t, uint8_t number,
                                       struct cv_ssh_reader *r, bool *is_established)
{
    switch (number) {
    case CV_SSH_MSG_SERVICE_REQUEST:
        return on_service_request(t, r);
    case CV_SSH_MSG_USERAUTH_REQUEST:
        return on_request(t, r, is_established);
    default:
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u from a client", number);
    }
}

static struct cv_status client_message(struct cv_ssh_transport *t, uint8_t number,
                                       struct cv_ssh_reader *r, bool *is_established)
{
    struct cv_slice service;
    if (cv_ssh_transport_is(t, PHASE_OPEN))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u after authentication", number);
    switch (number) {
    case CV_SSH_MSG_SERVICE_ACCEPT:
        if (t->has_service || !cv_ssh_read_string(r, &service) ||
            !cv_slice_is(service, service_auth))
            return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "a service that was not asked for");
        t->has_service = true;
        return cv_ok();
    case CV_SSH_MSG_USERAUTH_SUCCESS:
        if (!t->has_service)
            return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "authentication without its service");
        *is_established = true;
        return established(t);
    case CV_SSH_MSG_USERAUTH_FAILURE:
        return cv_ssh_transport_fail(t, CV_AUTH_FAILED, "the server refuses method none");
    case CV_SSH_MSG_USERAUTH_BANNER:
        return cv_ssh_transport_noise(t);
    default:
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u from a server", number);
    }
}

struct cv_status cv_ssh_transport_auth_message(struct cv_ssh_transport *t, struct cv_slice payload,
                                               bool *is_established)
{
    struct cv_ssh_reader r = cv_ssh_reader(payload);
    uint8_t number;
    (void)cv_ssh_read_u8(&r, &number);
    return t->is_client ? client_message(t, number, &r, is_established)
                        : server_message(t, number, &r, is_established);
}
