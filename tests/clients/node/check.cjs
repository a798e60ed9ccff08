'use strict';
// What the Node `ws` client sees of a running server. NODE_PATH says where `ws` is installed.
//
//   check.cjs echo URL...             against the echo app, each address in turn
//   check.cjs broadcast URL           against the broadcast app
//   check.cjs drain URL --pid PID     connects, sends SIGTERM to the server, expects 1001
//   check.cjs subprotocol URL         against the chat example
//   check.cjs bad-wire URL...         the echo checks that fit a wire which loses frames: up to 64 KiB
//
// Every check has a limit of its own, is run on fresh connections, and prints a line where it
// fails. The exit code says whether all of them passed.

const crypto = require('node:crypto');
const { parseArgs } = require('node:util');
const WebSocket = require('ws');

const MIB = 1 << 20;
const SIZES = [1, 125, 126, 127, 65535, 65536, MIB];
const PIPELINED = 2000;
const LIMIT_MS = 20_000;
// A lost frame may cost its sender a second: less is sent, and there is more time for it.
const BAD_WIRE = process.argv[2] === 'bad-wire';
const QUIET_MS = 300;

/** Exactly `size` bytes of UTF-8, with characters of 1 to 4 bytes where they fit. */
function textOf(size) {
  const block = 'aé€😀';
  const whole = Math.floor(size / Buffer.byteLength(block));
  return block.repeat(whole) + 'x'.repeat(size - whole * Buffer.byteLength(block));
}

/** `size` bytes that look random and are the same every time. */
function bytesOf(size) {
  const cipher = crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16, size), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(size));
}

function same(got, wanted, what) {
  const equal = Buffer.isBuffer(wanted)
    ? Buffer.isBuffer(got) && got.equals(wanted)
    : got === wanted;
  const short = (v) => (Buffer.isBuffer(v) ? `${v.length} bytes` : JSON.stringify(v)).slice(0, 80);
  if (!equal) throw new Error(`${what}: got ${short(got)}, expected ${short(wanted)}`);
}

/** A connection whose messages, pongs and close can be awaited in the order of their arrival. */
class Client {
  static opened = new Set();

  static async open(url, protocols = [], options = {}) {
    const client = new Client(new WebSocket(url, protocols, options));
    Client.opened.add(client);
    await new Promise((resolve, reject) => {
      client.ws.once('open', resolve);
      client.ws.once('error', reject);
    });
    return client;
  }

  /** Ends what a check left open, so that the next one starts from nothing. */
  static endAll() {
    for (const client of Client.opened) client.ws.terminate();
    Client.opened.clear();
  }

  constructor(ws) {
    this.ws = ws;
    this.queue = [];
    this.waiting = [];
    ws.on('message', (data, isBinary) => this.#push(isBinary ? data : data.toString()));
    ws.on('error', () => {}); // a failed write before the close frame is read; `closed` tells
    this.closed = new Promise((resolve) => {
      ws.on('close', (code, reason) => {
        resolve({ code, reason: reason.toString() });
        for (const { reject } of this.waiting.splice(0)) reject(new Error(`closed with ${code}`));
      });
    });
  }

  #push(message) {
    const next = this.waiting.shift();
    if (next) next.resolve(message);
    else this.queue.push(message);
  }

  receive() {
    if (this.queue.length > 0) return Promise.resolve(this.queue.shift());
    if (this.ws.readyState === WebSocket.CLOSED) return Promise.reject(new Error('closed'));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  pong(payload) {
    return new Promise((resolve) => {
      this.ws.once('pong', (data) => resolve(data));
      this.ws.ping(payload);
    });
  }
}

async function echo_text(url) {
  const client = await Client.open(url);
  for (const size of SIZES) {
    client.ws.send(textOf(size));
    same(await client.receive(), textOf(size), `text of ${size} bytes`);
  }
}

async function echo_binary(url) {
  const client = await Client.open(url);
  for (const size of SIZES) {
    client.ws.send(bytesOf(size));
    same(await client.receive(), bytesOf(size), `${size} bytes`);
  }
}

async function echo_fragmented(url) {
  const client = await Client.open(url, [], { perMessageDeflate: false });
  const letters = [...textOf(3000)];
  letters.forEach((c, i) => client.ws.send(c, { fin: i === letters.length - 1 }));
  same(await client.receive(), letters.join(''), 'text in fragments');
  const parts = Array.from({ length: 15 }, (_, i) => bytesOf(65536 + i));
  parts.forEach((part, i) => client.ws.send(part, { fin: i === parts.length - 1 }));
  same(await client.receive(), Buffer.concat(parts), '15 binary fragments');
}

async function ping_between_fragments(url) {
  const client = await Client.open(url, [], { perMessageDeflate: false });
  client.ws.send('before ', { fin: false });
  same(await client.pong('between'), Buffer.from('between'), 'pong inside a message');
  client.ws.send('after', { fin: true });
  same(await client.receive(), 'before after', 'message around a ping');
}

async function pipelined(url) {
  const client = await Client.open(url);
  const sizes = Array.from({ length: BAD_WIRE ? 100 : PIPELINED }, (_, i) => [1, 20, 125, 126, 1000, 4000][i % 6]);
  for (const size of sizes) client.ws.send(bytesOf(size));
  for (const [i, size] of sizes.entries()) {
    same(await client.receive(), bytesOf(size), `message ${i} of ${sizes.length}`);
  }
}

async function ping_answered(url) {
  const client = await Client.open(url);
  for (const size of [0, 1, 125]) {
    same(await client.pong(bytesOf(size)), bytesOf(size), `pong of ${size} bytes`);
  }
}

async function unsolicited_pong_ignored(url) {
  const client = await Client.open(url);
  client.ws.pong('nobody asked');
  client.ws.send('still here');
  same(await client.receive(), 'still here', 'message after a pong');
}

async function close_echoed(url) {
  for (const [code, reason] of [[1000, ''], [1000, 'done'], [1001, 'go'], [3001, 'é'.repeat(61)]]) {
    const client = await Client.open(url);
    client.ws.close(code, reason);
    const end = await client.closed;
    same(end.code, code, 'echoed close code');
    same(end.reason, reason, 'echoed close reason');
  }
  const bare = await Client.open(url);
  bare.ws.close();
  same((await bare.closed).code, 1005, 'answer to a close frame without a code');
}

async function too_big_refused(url) {
  const client = await Client.open(url);
  client.ws.send(Buffer.alloc(MIB + 1));
  same((await client.closed).code, 1009, 'close code after 1 MiB + 1');
}

async function invalid_utf8_refused(url) {
  for (const bad of [[0xff, 0xfe], [0x6f, 0xc0, 0xaf], [0xed, 0xa0, 0x80], [0x61, 0xe2, 0x82]]) {
    const client = await Client.open(url);
    client.ws.send(Buffer.from(bad), { binary: false });
    same((await client.closed).code, 1007, `close code after text ${bad}`);
  }
}

async function path_and_query_accepted(url) {
  for (const path of ['/', '/a/b%20c', '/room?name=x&y=%C3%A9&z', '/?' + 'q'.repeat(2000)]) {
    const client = await Client.open(url + path);
    client.ws.send(path);
    same(await client.receive(), path, 'message on that path');
  }
}

/** Nothing more arrives: nobody hears own words, nor a thing twice. */
async function quiet(clients) {
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  for (const client of clients) same(client.queue.length, 0, 'messages too many');
}

async function others_receive(url) {
  const clients = await Promise.all([1, 2, 3].map(() => Client.open(url)));
  const [one, two, three] = clients;
  one.ws.send('from one');
  for (const other of [two, three]) same(await other.receive(), 'from one', 'the others');
  two.ws.send(Buffer.from('from two'));
  for (const other of [one, three]) same(await other.receive(), Buffer.from('from two'), 'the others');
  await quiet(clients);
}

/** 40 connections are spread over the workers; all but the sender get each message once. */
async function all_workers_receive(url) {
  const clients = await Promise.all(Array.from({ length: 40 }, () => Client.open(url)));
  const senders = [0, 7, 14, 21, 28, 35];
  const rounds = 5;
  for (let turn = 0; turn < rounds; turn++) {
    for (const s of senders) clients[s].ws.send(`${s}:${turn}`);
  }
  for (const [i, client] of clients.entries()) {
    const wanted = senders.filter((s) => s !== i);
    const heard = [];
    while (heard.length < wanted.length * rounds) heard.push(await client.receive());
    for (const s of wanted) {
      const from = heard.filter((m) => m.startsWith(`${s}:`)).join(' ');
      const all = Array.from({ length: rounds }, (_, turn) => `${s}:${turn}`).join(' ');
      same(from, all, `client ${i} from ${s}`);
    }
  }
  await quiet(clients);
}

async function drain(url, pid) {
  const clients = await Promise.all(Array.from({ length: 8 }, () => Client.open(url)));
  clients[0].ws.send('warm');
  same(await clients[0].receive(), 'warm', 'echo before the drain');
  process.kill(pid, 'SIGTERM');
  const codes = await Promise.all(clients.map(async (client) => (await client.closed).code));
  same(codes.join(), clients.map(() => 1001).join(), 'close codes at the drain');
}

async function subprotocol(url) {
  const client = await Client.open(url, ['nope', 'chat.v1']);
  same(client.ws.protocol, 'chat.v1', 'chosen subprotocol');
}

const CHECKS = {
  echo: [
    echo_text,
    echo_binary,
    echo_fragmented,
    ping_between_fragments,
    pipelined,
    ping_answered,
    unsolicited_pong_ignored,
    close_echoed,
    too_big_refused,
    invalid_utf8_refused,
    path_and_query_accepted,
  ],
  'bad-wire': [
    echo_text,
    echo_binary,
    ping_between_fragments,
    pipelined,
    ping_answered,
    close_echoed,
    invalid_utf8_refused,
    path_and_query_accepted,
  ],
  broadcast: [others_receive, all_workers_receive],
  drain: [drain],
  subprotocol: [subprotocol],
};

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function main() {
  if (BAD_WIRE) SIZES.pop();
  const { values, positionals } = parseArgs({
    options: { pid: { type: 'string' } },
    allowPositionals: true,
  });
  const [mode, ...urls] = positionals;
  let run = 0;
  let failed = 0;
  for (const url of urls) {
    for (const check of CHECKS[mode]) {
      run += 1;
      try {
        await within(BAD_WIRE ? 3 * LIMIT_MS : LIMIT_MS, check(url, Number(values.pid)));
      } catch (error) {
        failed += 1;
        console.log(`FAIL ${check.name} ${new URL(url).host}: ${error.message}`);
      } finally {
        Client.endAll();
      }
    }
  }
  console.log(`node ${mode}: ${run - failed} of ${run} checks passed`);
  process.exit(failed || run === 0 ? 1 : 0);
}

main();
