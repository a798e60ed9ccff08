// Another load generator, over `ws`, to check `hioload-ws bench` against, and a server with a
// known time of service. Small on purpose: that it does what it says can be seen.
//
//   node second_generator.cjs serve DELAY_MS
//   node second_generator.cjs load URL CONNECTIONS SIZE SECONDS rate N | depth N
"use strict";
const { WebSocket, WebSocketServer } = require("ws");

const WARMUP_MS = 500;

// Echoes each message DELAY_MS after it came.
function serve(delayMs) {
  const options = { port: 0, host: "127.0.0.1", perMessageDeflate: false };
  const server = new WebSocketServer(options, () => {
    console.log(`listening on 127.0.0.1:${server.address().port}`);
  });
  server.on("connection", socket => {
    socket.on("message", (data, binary) => setTimeout(() => socket.send(data, { binary }), delayMs));
    socket.on("error", () => socket.terminate());
  });
}

async function load(url, connections, size, seconds, mode, amount) {
  const open = () => new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { perMessageDeflate: false });
    socket.once("open", () => resolve(socket));
    socket.once("error", reject);
  });
  const sockets = await Promise.all(Array.from({ length: connections }, open));
  const payload = Buffer.alloc(size, "x");
  const begin = performance.now() + WARMUP_MS, end = begin + seconds * 1000;
  const latencies = [];
  let answered = 0;
  const send = socket => {
    socket.inFlight.push(performance.now());
    socket.send(payload);
  };
  for (const socket of sockets) {
    socket.inFlight = [];
    socket.on("message", () => {
      const now = performance.now(), sent = socket.inFlight.shift();
      if (now >= begin && now < end) {
        answered += 1;
        latencies.push(now - sent);
      }
      if (mode === "depth" && now < end) send(socket);
    });
  }
  if (mode === "depth") {
    for (const socket of sockets) for (let i = 0; i < amount; i++) send(socket);
  } else {
    const started = performance.now();
    let sent = 0;
    const tick = setInterval(() => {
      const due = (performance.now() - started) / 1000 * amount;
      for (; sent < due; sent++) send(sockets[sent % sockets.length]);
    }, 1);
    setTimeout(() => clearInterval(tick), end - performance.now());
  }
  await new Promise(resolve => setTimeout(resolve, end - performance.now() + 200));
  latencies.sort((a, b) => a - b);
  const percentile = p => Math.round(1000 * latencies[Math.floor(latencies.length * p)]);
  console.log(JSON.stringify({
    rate: answered / seconds,
    latency_us: { p50: percentile(0.5), p99: percentile(0.99) },
  }));
  process.exit(0);
}

const [command, first, ...rest] = process.argv.slice(2);
if (command === "serve") {
  serve(Number(first));
} else {
  const [connections, size, seconds, mode, amount] = rest;
  load(first, Number(connections), Number(size), Number(seconds), mode, Number(amount));
}
