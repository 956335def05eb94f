/** Text to speech. */
import { asked, request } from "./http.js";

export const voices = () => asked("v1/audio/voices");

/** The whole audio of a text. @param {any} wanted fields of POST /v1/audio/speech @param {AbortSignal} [signal] */
export async function speech(wanted, signal) {
  const answer = await request("v1/audio/speech", { method: "POST", json: wanted, signal });
  return answer.blob();
}
