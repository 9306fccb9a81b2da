// SPDX-License-Identifier: MIT
// Reads one ExportTraceServiceRequest from stdin with the message classes that OpenTelemetry's own
// transformer ships, made from its published schema, and prints what they found as JSON.
// node otlp_decode.js protobuf|json
'use strict';
const fs = require('fs');
const path = require('path');

const modules = process.env.NODE_PATH;
const root = require(path.join(modules,
  '@opentelemetry/otlp-transformer/build/src/generated/root.js'));
const Request = root.opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest;
const isJson = process.argv[2] === 'json';
const input = fs.readFileSync(0);

// protobufjs has JSON's bytes in base64, OTLP has ids in hex: this is what its readers do first.
const toBase64 = (key, value) =>
  ['traceId', 'spanId', 'parentSpanId'].includes(key) ? Buffer.from(value, 'hex').toString('base64')
    : value;

let message;
if (isJson) {
  const object = JSON.parse(input.toString('utf8'), toBase64);
  message = Request.fromObject(object);
} else {
  message = Request.decode(input);
}
const complaint = Request.verify(message);
if (complaint) {
  console.error(complaint);
  process.exit(1);
}
// Nothing was skipped: what is written again is as long.
const again = Request.encode(message).finish();
if (!isJson && again.length !== input.length) {
  console.error(`${input.length} bytes were read as ${again.length}`);
  process.exit(1);
}
const found = Request.toObject(message, { longs: String, bytes: Array, enums: Number });
const toHex = (key, value) => ['traceId', 'spanId', 'parentSpanId'].includes(key)
  ? Buffer.from(value).toString('hex') : value;
process.stdout.write(JSON.stringify(found, toHex));
