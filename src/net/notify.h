/* SPDX-License-Identifier: MIT
 *
 * Tells the service manager how the process is (sd_notify(3)): datagrams to a Unix socket.
 */
#ifndef CV_NET_NOTIFY_H
#define CV_NET_NOTIFY_H

/* Sends `text`, lines like "READY=1". `socket_path`: what NOTIFY_SOCKET said, a path or, with '@'
 * in front, a name in the abstract namespace; NULL or another kind: nothing happens. Nobody waits
 * and nothing is said about failure, since nothing depends on it. Any thread. */
void cv_notify(const char *socket_path, const char *text);

#endif
