/* SPDX-License-Identifier: MIT
 *
 * Writes one message of the OpenTelemetry protocol, as JSON or as protobuf: one walk over the data
 * makes either. The rules of the JSON form that generic writers miss (OTLP specification, "JSON
 * Protobuf Encoding"): keys are lowerCamelCase, ids are hex and not base64, enums are integers,
 * 64-bit integers are strings of digits. Protobuf: https://protobuf.dev/programming-guides/encoding
 *
 * Borrows the buffer. After a failure (the buffer's cap, memory) nothing more is written, and
 * cv_otlp_end says so. One thread.
 */
#ifndef CV_TELEMETRY_OTLP_WRITER_H
#define CV_TELEMETRY_OTLP_WRITER_H

#include "base/buf.h"

struct cv_otlp_writer {
    struct cv_buf *out;
    bool is_json;
    bool has_failed;
};

/* A message in a field, or, with key NULL, an element of the list that is open. Returns a mark for
 * cv_otlp_close. */
size_t cv_otlp_open(struct cv_otlp_writer *w, unsigned number, const char *key);
void cv_otlp_close(struct cv_otlp_writer *w, size_t mark);

/* A repeated field: elements follow with key NULL. Nothing in protobuf. */
void cv_otlp_open_list(struct cv_otlp_writer *w, const char *key);
void cv_otlp_close_list(struct cv_otlp_writer *w);

/* The outermost message. */
void cv_otlp_begin(struct cv_otlp_writer *w, bool is_json, struct cv_buf *out);
/* CV_NO_RESOURCES when something did not fit; the buffer's content is of no use then. */
struct cv_status cv_otlp_end(struct cv_otlp_writer *w);

/* Text: what is no UTF-8 is replaced by U+FFFD, since neither form can hold it. */
void cv_otlp_text(struct cv_otlp_writer *w, unsigned number, const char *key, struct cv_slice text);
void cv_otlp_id(struct cv_otlp_writer *w, unsigned number, const char *key, struct cv_slice id);
void cv_otlp_enum(struct cv_otlp_writer *w, unsigned number, const char *key, unsigned value);
void cv_otlp_bool(struct cv_otlp_writer *w, unsigned number, const char *key, bool value);
void cv_otlp_int64(struct cv_otlp_writer *w, unsigned number, const char *key, int64_t value);
void cv_otlp_fixed64(struct cv_otlp_writer *w, unsigned number, const char *key, uint64_t value);
void cv_otlp_fixed32(struct cv_otlp_writer *w, unsigned number, const char *key, uint32_t value);

#endif
