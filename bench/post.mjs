// Posts the lines of a file, each {body, signature}, so many at once; prints JSON: seconds, and how many failed.
// node post.mjs URL AT_ONCE FILE
import fs from "node:fs";
import http from "node:http";

const [url, atOnce, file] = process.argv.slice(2);
const lines = fs.readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line));
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(atOnce) });
let next = 0;
let failed = 0;

function post({ body, signature }) {
  return new Promise((resolve) => {
    const headers = {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      "stripe-signature": signature,
    };
    const request = http.request(url, { method: "POST", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => {
        if (response.statusCode !== 200) failed += 1;
        resolve();
      });
    });
    request.on("error", () => {
      failed += 1;
      resolve();
    });
    request.end(body);
  });
}

async function worker() {
  while (next < lines.length) await post(lines[next++]);
}

const begun = performance.now();
await Promise.all(Array.from({ length: Number(atOnce) }, worker));
console.log(JSON.stringify({ seconds: (performance.now() - begun) / 1000, failed }));
agent.destroy();
