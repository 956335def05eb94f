/** Who uses the page, and the keys of this server. */
import { asked, request } from "./http.js";

/** @returns {Promise<{needs_key: boolean, signed_in: boolean, tenant: string, scopes: string[], expires: number | null}>} */
export const whoAmI = () => asked("v1/sign_in");
/** @param {string} key exchanged for a cookie; the page does not keep it */
export const signIn = (key) => asked("v1/sign_in", { method: "POST", json: { key } });
export const signOut = () => request("v1/sign_in", { method: "DELETE" });

/** A short-lived secret for one kind of socket. @param {"transcription" | "realtime"} type */
export async function secret(type) {
  const made = await asked("v1/realtime/client_secrets", { method: "POST", json: { session: { type } } });
  return made.value;
}

export const keys = () => asked("v1/keys");
/** @param {object} wanted */
export const createKey = (wanted) => asked("v1/keys", { method: "POST", json: wanted });
/** @param {string} id */
export const revokeKey = (id) => request(`v1/keys/${encodeURIComponent(id)}`, { method: "DELETE" });
