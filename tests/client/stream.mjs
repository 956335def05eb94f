// Streams a file of samples with voxray.js; prints every event, and at last how it ended.
// `node stream.mjs URL FILE SPEED FINALIZE_AT_MS KEY`

import { readFileSync } from "node:fs";
import { LiveTranscription } from "../../serve_app/web/voxray.js";

const [url, file, speed, finalizeAtMs, key] = process.argv.slice(2);
const print = (event) => console.log(JSON.stringify(event));
const live = new LiveTranscription(url, { language: "en" }, print, async () => key);
let failed = false;
live.done.then(
  () => print({ type: "done" }),
  (error) => {
    failed = true;
    print({ type: "failed", code: error.code, message: error.message });
  },
);

const CHUNK_MS = 100;
const CHUNK_BYTES = CHUNK_MS * 32;
const audio = readFileSync(file);
for (let at = 0; at < audio.length && !failed; at += CHUNK_BYTES) {
  if (at / 32 === Number(finalizeAtMs)) live.finalize();
  await live.send(audio.subarray(at, at + CHUNK_BYTES)).catch(() => {});
  if (Number(speed)) await new Promise((done) => setTimeout(done, CHUNK_MS / Number(speed)));
}
live.finish();
