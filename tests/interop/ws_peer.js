// SPDX-License-Identifier: MIT
//
// npm's ws as a peer:
//   ws_peer.js echo [plain]                 a server that echoes; prints its port
//   ws_peer.js drive MIB [plain]            a server in the way of Autobahn's: one case, which sends
//                                           MIB MiB to a client that echoes; prints its port, then
//                                           what it saw
//   ws_peer.js client MIB URL [plain] [PROTOCOL]
//                                           sends MIB MiB to a server that echoes, prints what it saw
// `plain` leaves permessage-deflate out. A token in AUTHORIZATION goes with the client's request.
'use strict';
const crypto = require('node:crypto');
const { WebSocket, WebSocketServer } = require('ws');

const MIB = 1 << 20;
const words = process.argv.slice(2);
const mode = words.shift();
const mib = mode === 'echo' ? 0 : Number(words.shift());
const url = mode === 'client' ? words.shift() : null;
const isPlain = words[0] === 'plain' && !!words.shift();
const perMessageDeflate = isPlain ? false : { threshold: 0, zlibDeflateOptions: { level: 1 } };

// Half of a piece is noise, half of it compresses.
function pieces() {
  const noise = crypto.randomBytes(MIB / 2);
  return Buffer.concat([noise, Buffer.alloc(MIB / 2, 'culvert ')]);
}

// Sends `mib` pieces and texts in between, a few ahead of their echoes; resolves with a report.
function exercise(ws) {
  return new Promise((resolve, reject) => {
    const piece = pieces();
    const text = 'grüße €𝄞 '.repeat(100);
    let sent = 0;
    let echoed = 0;
    let pongs = 0;
    const more = () => {
      for (; sent < mib && sent < echoed + 4; sent++) {
        ws.send(piece);
        if (sent % 10 === 0) ws.ping('p' + sent);
      }
    };
    ws.on('pong', () => pongs++);
    ws.on('error', reject);
    ws.on('close', () => reject(new Error('closed too early')));
    ws.on('message', (data, isBinary) => {
      if (!isBinary) {
        if (data.toString() !== text) reject(new Error('another text came back'));
        ws.removeAllListeners('close');
        ws.on('close', (code) => resolve({
          mib: echoed, pongs, code, extensions: ws.extensions, protocol: ws.protocol }));
        ws.close(1000, 'enough');
        return;
      }
      if (!data.equals(piece)) reject(new Error('other bytes came back'));
      echoed++;
      if (echoed === mib) ws.send(text);
      else more();
    });
    more();
  });
}

function report(result) {
  process.stdout.write(JSON.stringify(result) + '\n');
}

function serve(onConnection) {
  const server = new WebSocketServer(
    { host: '127.0.0.1', port: 0, perMessageDeflate, maxPayload: 64 * MIB },
    () => process.stdout.write(server.address().port + '\n'));
  server.on('connection', onConnection);
  return server;
}

if (mode === 'echo') {
  serve((ws) => {
    ws.on('error', () => {});
    ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
  });
} else if (mode === 'drive') {
  const server = serve((ws, request) => {
    ws.on('error', () => {});
    if (request.url.startsWith('/runCase')) {
      exercise(ws).then(report, (error) => report({ error: String(error) }));
      return;
    }
    if (request.url === '/getCaseCount') ws.send('1');
    ws.close(1000);
    if (request.url.startsWith('/updateReports')) ws.on('close', () => server.close());
  });
} else {
  const headers = process.env.AUTHORIZATION ? { authorization: process.env.AUTHORIZATION } : {};
  const ws = new WebSocket(url, words, { perMessageDeflate, headers, maxPayload: 64 * MIB });
  ws.on('error', (error) => { report({ error: String(error) }); process.exit(1); });
  ws.on('open', () => exercise(ws).then(report, (error) => {
    report({ error: String(error) });
    process.exit(1);
  }));
}
