// SPDX-License-Identifier: MIT
//
// Node's fetch (undici) as a consumer: fetch.js get|post|talk URL [FILE or COUNT].
// `get` and `post` write the body to stdout piece by piece as it comes. `talk` sends a streamed
// body whose every piece waits for the answer to the one before. The Authorization field's value
// is read from AUTHORIZATION. Ends with 3 when the answer was cut.
'use strict';
const { createReadStream } = require('node:fs');
const { writeSync } = require('node:fs');
const { Readable } = require('node:stream');

const [mode, url, argument] = process.argv.slice(2);
const headers = { authorization: process.env.AUTHORIZATION };

async function show(response) {
  try {
    for await (const piece of response.body) {
      for (let at = 0; at < piece.length;) at += writeSync(1, piece, at);
    }
  } catch (error) {
    console.error(error);
    process.exit(3);
  }
}

async function talk(count) {
  let answered;
  async function* questions() {
    for (let number = 0; number < count; number++) {
      const answer = new Promise((resolve) => { answered = resolve; });
      yield Buffer.from(`question ${number}\n`);
      await answer;
    }
  }
  const response = await fetch(url, { method: 'POST', headers, duplex: 'half',
                                      body: Readable.toWeb(Readable.from(questions())) });
  const decoder = new TextDecoder();
  for await (const piece of response.body) {
    process.stdout.write(decoder.decode(piece));
    answered();
  }
}

async function main() {
  if (mode === 'talk') return talk(Number(argument));
  const body = mode === 'post' ? Readable.toWeb(createReadStream(argument)) : undefined;
  return show(await fetch(url, { method: body ? 'POST' : 'GET', headers, body,
                                 duplex: body && 'half' }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
