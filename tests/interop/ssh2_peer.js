// SPDX-License-Identifier: MIT
//
// npm's ssh2 as a peer, for tests/interop:
//   ssh2_peer.js publish NAME PORT REKEY_BYTES COMMAND…   NAME:80 leads to 127.0.0.1:PORT
//   ssh2_peer.js reach NAME PORT REKEY_BYTES COMMAND…     127.0.0.1:PORT leads to NAME:80
//   ssh2_peer.js server KEY_FILE PORT REKEY_BYTES         lets everybody in, echoes direct-tcpip
//                                                         to `echo`, forwards what is asked for
// COMMAND is the ProxyCommand. Prints "ready" once it serves, "rekeyed" at each key exchange that
// it begins. ssh2 never does that by itself: here after so many bytes either way.
'use strict';
const { spawn } = require('node:child_process');
const { readFileSync } = require('node:fs');
const net = require('node:net');
const { Duplex } = require('node:stream');
const { Client, Server } = require('ssh2');

const [mode, ...rest] = process.argv.slice(2);

function die(error) {
  console.error(error);
  process.exit(1);
}

// The process's stdin and stdout as one socket.
function through(command) {
  const child = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
  const socket = Duplex.from({ writable: child.stdin, readable: child.stdout });
  child.on('exit', () => process.exit(1));
  return socket;
}

function rekeyEvery(limit) {
  let bytes = 0;
  return (protocol) => (data) => {
    bytes += data.length;
    if (bytes < limit) return;
    bytes = 0;
    console.log('rekeyed');
    protocol.rekey();
  };
}

// pipe() hands on the end, which ssh2 also makes of a close; "close" may come before the last data.
function join(channel, socket) {
  channel.pipe(socket).pipe(channel);
  channel.on('error', () => socket.destroy());
  socket.on('error', () => channel.close());
}

function client() {
  const [name, port, limit, ...command] = rest;
  const connection = new Client();
  const counted = rekeyEvery(Number(limit));
  const carry = (channel, socket) => {
    const count = counted(connection._protocol);
    channel.on('data', count);
    socket.on('data', count);
    join(channel, socket);
  };
  connection.on('error', die).on('close', () => process.exit(1));
  connection.on('tcp connection', (info, accept, reject) => {
    const socket = net.connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true });
    socket.setNoDelay(true);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.removeListener('error', reject);
      carry(accept(), socket);
    });
  });
  connection.on('ready', () => {
    if (mode === 'publish') {
      connection.forwardIn(name, 80, (error) => (error ? die(error) : console.log('ready')));
      return;
    }
    net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.setNoDelay(true);
      connection.forwardOut('127.0.0.1', 1, name, 80, (error, channel) => {
        if (error) return die(error);
        carry(channel, socket);
      });
    }).listen(Number(port), '127.0.0.1', () => console.log('ready'));
  });
  connection.connect({ sock: through(command), username: 'alice', authHandler: ['none'],
                       keepaliveInterval: 0, readyTimeout: 60000 });
}

function server() {
  const [keyFile, port, limit] = rest;
  const counted = rekeyEvery(Number(limit));
  const ssh = new Server({ hostKeys: [readFileSync(keyFile)] }, (connection) => {
    connection.on('error', () => {});
    connection.on('authentication', (attempt) => attempt.accept());
    connection.on('tcpip', (accept, reject, info) => {
      if (info.destIP !== 'echo') return reject();
      const channel = accept();
      channel.on('data', counted(connection._protocol));
      channel.on('error', () => {});
      channel.pipe(channel);
    });
    connection.on('request', (accept, reject, name, info) => {
      if (name !== 'tcpip-forward') return reject && reject();
      const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
        socket.setNoDelay(true);
        connection.forwardOut(info.bindAddr, info.bindPort, '127.0.0.1', 1, (error, channel) => {
          if (error) return die(error);
          channel.on('data', counted(connection._protocol));
          join(channel, socket);
        });
      }).listen(info.bindPort, '127.0.0.1', () => accept && accept());
      connection.on('close', () => listener.close());
    });
  });
  ssh.listen(Number(port), '127.0.0.1', () => console.log('ready'));
}

if (mode === 'server') server();
else client();
