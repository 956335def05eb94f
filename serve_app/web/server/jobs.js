/** Recordings and what is made of them. */
import { asked } from "./http.js";

/**
 * @param {Blob} file @param {string} name @param {Record<string, string>} [options] fields of POST /v1/jobs
 * @returns {Promise<any>} the job
 */
export function submit(file, name, options = {}) {
  const body = new FormData();
  for (const [field, value] of Object.entries(options)) body.append(field, value);
  body.append("file", file, name);
  return asked("v1/jobs", { method: "POST", body });
}
