/** Text to speech. */
import { asked, request } from "./http.js";

export const voices = () => asked("v1/audio/voices");

/** The whole audio of a text. @param {any} wanted fields of POST /v1/audio/speech @param {AbortSignal} [signal] */
export async function speech(wanted, signal) {
  const answer = await request("v1/audio/speech", { method: "POST", json: wanted, signal });
  return answer.blob();
}

/**
 * The samples of a text as they are made, 16-bit mono at 24 kHz.
 * @param {any} wanted @param {AbortSignal} signal ends it, and the work of the model
 */
export async function* spoken(wanted, signal) {
  const answer = await request("v1/audio/speech", { method: "POST", json: { ...wanted, response_format: "pcm" }, signal });
  const reader = answer.body.getReader();
  let rest = new Uint8Array();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const bytes = joined(rest, value);
      const whole = bytes.length & ~1;
      rest = bytes.slice(whole);
      if (whole) yield new Int16Array(bytes.slice(0, whole).buffer);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function joined(one, other) {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
