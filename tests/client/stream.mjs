// Streams counted samples with voxray.js; prints every event, and at last how it ended.
// `node stream.mjs URL UNTIL_MS SPEED FINALIZE_AT_MS`

import { LiveTranscription } from "../../serve_app/web/voxray.js";

const [url, untilMs, speed, finalizeAtMs] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const print = (event) => console.log(JSON.stringify(event));
const live = new LiveTranscription(url, { language: "en" }, print);
let failed = false;
live.done.then(
  () => print({ type: "done" }),
  (error) => print({ type: "failed", code: error.code, message: error.message }),
);
live.done.catch(() => (failed = true));

const CHUNK_MS = 100;
for (let ms = 0; ms < untilMs && !failed; ms += CHUNK_MS) {
  if (ms === finalizeAtMs) live.finalize();
  const chunk = Uint16Array.from({ length: CHUNK_MS * 16 }, (_, at) => (ms * 16 + at) % 65521);
  await live.send(chunk).catch(() => {});
  if (speed) await new Promise((done) => setTimeout(done, CHUNK_MS / speed));
}
live.finish();
