// Sends GET requests over a fixed number of connections for a fixed time; prints JSON: requests per
// second and percentiles in milliseconds. node load.mjs URL CONNECTIONS SECONDS HEADERS_JSON
import http from "node:http";

const [url, connections, seconds, headers] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(connections) });
const options = { agent, headers: JSON.parse(headers) };
const times = [];
let failed = 0;
const end = performance.now() + Number(seconds) * 1000;

function once() {
  return new Promise((resolve) => {
    const begun = performance.now();
    http.get(url, options, (response) => {
      response.resume();
      response.on("end", () => {
        times.push(performance.now() - begun);
        if (response.statusCode !== 200) failed += 1;
        resolve();
      });
    }).on("error", () => {
      failed += 1;
      resolve();
    });
  });
}

async function worker() {
  while (performance.now() < end) await once();
}

await Promise.all(Array.from({ length: Number(connections) }, worker));
times.sort((a, b) => a - b);
const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
console.log(JSON.stringify({ rate: times.length / Number(seconds), p50: at(0.5), p95: at(0.95), failed }));
agent.destroy();
