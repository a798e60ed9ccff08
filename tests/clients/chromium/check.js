// What a browser's own WebSocket sees of a running server. The page's query says what to check:
//   ?mode=echo&url=ws://...&url=ws://...    (or broadcast, drain, subprotocol)
// The verdict goes to the driver (drive.py) as a POST, and stays on the page for a person.

const MIB = 1 << 20;
const SIZES = [1, 125, 126, 127, 65535, 65536, MIB];
const LIMIT_MS = 20_000;
const QUIET_MS = 300;

/** Exactly `size` bytes of UTF-8, with characters of 1 to 4 bytes where they fit. */
function textOf(size) {
  const whole = Math.floor(size / 10);
  return 'aé€😀'.repeat(whole) + 'x'.repeat(size - whole * 10);
}

/** `size` bytes with no short period, the same every time. */
function bytesOf(size) {
  const bytes = new Uint8Array(size);
  let state = size + 1;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

function same(got, wanted, what) {
  const short = (v) => (v instanceof ArrayBuffer ? `${v.byteLength} bytes` : String(v)).slice(0, 80);
  if (got !== wanted) throw new Error(`${what}: got ${short(got)}, expected ${short(wanted)}`);
}

function sameBytes(got, wanted, what) {
  if (!(got instanceof ArrayBuffer)) throw new Error(`${what}: got text, expected binary`);
  const bytes = new Uint8Array(got);
  same(bytes.length, wanted.length, `${what}, length`);
  const wrong = bytes.findIndex((byte, i) => byte !== wanted[i]);
  if (wrong >= 0) throw new Error(`${what}: byte ${wrong} is wrong`);
}

/** A connection whose messages and close can be awaited. */
class Client {
  static opened = new Set();

  static open(url, protocols = []) {
    const client = new Client(new WebSocket(url, protocols));
    Client.opened.add(client);
    return new Promise((resolve, reject) => {
      client.ws.onopen = () => resolve(client);
      client.ws.onerror = () => reject(new Error(`cannot connect to ${url}`));
    });
  }

  static closeAll() {
    for (const client of Client.opened) client.ws.close();
    Client.opened.clear();
  }

  constructor(ws) {
    this.ws = ws;
    this.queue = [];
    this.waiting = [];
    ws.binaryType = 'arraybuffer';
    ws.onmessage = ({ data }) => {
      const next = this.waiting.shift();
      if (next) next.resolve(data);
      else this.queue.push(data);
    };
    this.closed = new Promise((resolve) => {
      ws.onclose = (event) => {
        resolve(event);
        for (const { reject } of this.waiting.splice(0)) {
          reject(new Error(`closed with ${event.code}`));
        }
      };
    });
  }

  receive() {
    if (this.queue.length > 0) return Promise.resolve(this.queue.shift());
    if (this.ws.readyState === WebSocket.CLOSED) return Promise.reject(new Error('closed'));
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}

async function echo_text(url) {
  const client = await Client.open(url);
  for (const size of SIZES) {
    client.ws.send(textOf(size));
    same(await client.receive(), textOf(size), `text of ${size} bytes`);
  }
  client.ws.send('');
  same(await client.receive(), '', 'empty text');
}

async function echo_binary(url) {
  const client = await Client.open(url);
  for (const size of SIZES) {
    client.ws.send(bytesOf(size));
    sameBytes(await client.receive(), bytesOf(size), `binary of ${size} bytes`);
    client.ws.send(new Blob([bytesOf(size)]));
    sameBytes(await client.receive(), bytesOf(size), `blob of ${size} bytes`);
  }
}

async function pipelined(url) {
  const client = await Client.open(url);
  const sizes = Array.from({ length: 2000 }, (_, i) => [1, 20, 125, 126, 1000, 4000][i % 6]);
  for (const size of sizes) client.ws.send(bytesOf(size));
  for (const [i, size] of sizes.entries()) {
    sameBytes(await client.receive(), bytesOf(size), `message ${i} of ${sizes.length}`);
  }
  same(client.ws.bufferedAmount, 0, 'bytes left to send');
}

async function close_echoed(url) {
  for (const [code, reason] of [[1000, ''], [1000, 'done'], [3001, 'é'.repeat(61)]]) {
    const client = await Client.open(url);
    client.ws.close(code, reason);
    const end = await client.closed;
    same(end.wasClean, true, 'clean close');
    same(end.code, code, 'echoed close code');
    same(end.reason, reason, 'echoed close reason');
  }
}

async function too_big_refused(url) {
  const client = await Client.open(url);
  client.ws.send(new Uint8Array(MIB + 1));
  same((await client.closed).code, 1009, 'close code after 1 MiB + 1');
}

async function path_and_query_accepted(url) {
  for (const path of ['/', '/a/b%20c', '/room?name=x&y=%C3%A9&z', '/?' + 'q'.repeat(2000)]) {
    const client = await Client.open(url + path);
    client.ws.send(path);
    same(await client.receive(), path, 'message on that path');
  }
}

async function nothing_unasked_is_agreed(url) {
  const client = await Client.open(url);
  same(client.ws.protocol, '', 'subprotocol');
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
  two.ws.send(bytesOf(1000));
  for (const other of [one, three]) sameBytes(await other.receive(), bytesOf(1000), 'the others');
  await quiet(clients);
}

/**
 * 16 connections are spread over the workers; all but the sender get each message once. (Not more:
 * a browser slows down the opening of many connections to one host.)
 */
async function all_workers_receive(url) {
  const clients = await Promise.all(Array.from({ length: 16 }, () => Client.open(url)));
  const senders = [0, 7, 14];
  const rounds = 5;
  for (let turn = 0; turn < rounds; turn++) {
    for (const s of senders) clients[s].ws.send(`${s}:${turn}`);
  }
  for (const [i, client] of clients.entries()) {
    const wanted = senders.filter((s) => s !== i);
    const heard = [];
    while (heard.length < wanted.length * rounds) heard.push(await client.receive());
    for (const s of wanted) {
      const from = heard.filter((message) => message.startsWith(`${s}:`)).join(' ');
      const all = Array.from({ length: rounds }, (_, turn) => `${s}:${turn}`).join(' ');
      same(from, all, `client ${i} from ${s}`);
    }
  }
  await quiet(clients);
}

/** The driver sends SIGTERM to the server when this page asks for it. */
async function drain(url) {
  const clients = await Promise.all(Array.from({ length: 8 }, () => Client.open(url)));
  clients[0].ws.send('warm');
  same(await clients[0].receive(), 'warm', 'echo before the drain');
  await fetch('/drain', { method: 'POST' });
  for (const client of clients) same((await client.closed).code, 1001, 'close code at the drain');
}

async function subprotocol(url) {
  const client = await Client.open(url, ['nope', 'chat.v1']);
  same(client.ws.protocol, 'chat.v1', 'chosen subprotocol');
}

const CHECKS = {
  echo: [
    echo_text,
    echo_binary,
    pipelined,
    close_echoed,
    too_big_refused,
    path_and_query_accepted,
    nothing_unasked_is_agreed,
  ],
  broadcast: [others_receive, all_workers_receive],
  drain: [drain],
  subprotocol: [subprotocol],
};

function within(ms, promise) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`nothing after ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, late]);
}

async function main() {
  const query = new URLSearchParams(location.search);
  const verdict = { run: 0, failures: [] };
  for (const url of query.getAll('url')) {
    for (const check of CHECKS[query.get('mode')]) {
      verdict.run += 1;
      try {
        await within(LIMIT_MS, check(url));
      } catch (error) {
        verdict.failures.push(`${check.name} ${url}: ${error.message}`);
      } finally {
        Client.closeAll();
      }
    }
  }
  document.title = verdict.failures.length === 0 && verdict.run > 0 ? 'passed' : 'failed';
  document.getElementById('log').textContent = JSON.stringify(verdict, null, 2);
  await fetch('/verdict', { method: 'POST', body: JSON.stringify(verdict) });
}

main();
