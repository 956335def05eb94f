/** Recordings and what is made of them. */
import { asked, events, request, ServerError } from "./http.js";

const at = (id, rest = "") => `v1/jobs/${encodeURIComponent(id)}${rest}`;

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

/** Older ones than that with the id `after`; with `q`, those that have these words. */
export function list({ after = "", q = "", limit = 50 } = {}) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (after) query.set("after", after);
  if (q) query.set("q", q);
  return asked(`v1/jobs?${query}`);
}

/** @param {string} id */
export const job = (id) => asked(at(id));
/** Cancels one that has not ended, and deletes one that has. @param {string} id */
export const remove = (id) => request(at(id), { method: "DELETE" });
/** @param {string} id */
export const peaks = (id) => asked(at(id, "/peaks"));
/** @param {string} id */
export const revisions = (id) => asked(at(id, "/revisions"));
/** Relative addresses, for players and downloads. */
export const audioOf = (id) => at(id, "/audio");
export const originalOf = (id) => at(id, "/audio?original=true");
export const exportOf = (id, form) => at(id, `/export/${form}`);

/** @param {string} id @param {number} [revision] */
export async function result(id, revision) {
  const answer = await request(at(id, revision === undefined ? "/result" : `/result?revision=${revision}`));
  return tagged(answer);
}

/**
 * All edits or none; fails with the code `revision_conflict` if somebody else was faster.
 * @param {string} id @param {string} etag of what is corrected @param {any} correction
 */
export async function correct(id, etag, correction) {
  const ask = { method: "PATCH", json: correction, headers: { "If-Match": etag } };
  return tagged(await request(at(id, "/result"), ask));
}

/** @param {Response} answer */
async function tagged(answer) {
  return { result: await answer.json(), etag: answer.headers.get("ETag") };
}

/** Submits the same recording again with the same options. @param {any} failed the job */
export async function retry(failed) {
  const sound = await (await request(originalOf(failed.id))).blob();
  const given = Object.entries(failed.options).filter(
    ([, value]) => ["string", "number", "boolean"].includes(typeof value) && value !== "",
  );
  const options = Object.fromEntries(given.map(([name, value]) => [name, String(value)]));
  return submit(sound, failed.file.name, options);
}

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/** All jobs of the tenant, as they are now: one stream for the whole page. */
class JobFeed {
  /** @type {Map<string, any>} the newest first */
  jobs = new Map();
  /** @type {ServerError | null} while the server does not answer */
  error = null;
  #followers = new Set();
  #stopping = new AbortController();

  /** @param {() => void} onChange @returns {() => void} ends it */
  follow(onChange) {
    this.#followers.add(onChange);
    if (this.#followers.size === 1) this.#run(new AbortController());
    return () => {
      this.#followers.delete(onChange);
      if (!this.#followers.size) this.#stopping.abort();
    };
  }

  async #run(stopping) {
    this.#stopping = stopping;
    let wait = FIRST_WAIT_MS;
    while (!stopping.signal.aborted) {
      try {
        for await (const { data } of events("v1/jobs/events", stopping.signal)) {
          wait = FIRST_WAIT_MS;
          this.#take(data);
        }
      } catch (error) {
        if (stopping.signal.aborted) return;
        this.#tell(error instanceof ServerError ? error : null);
      }
      await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random())));
      wait = Math.min(LONGEST_WAIT_MS, wait * 2);
    }
  }

  #take(event) {
    if (event.type === "snapshot") this.jobs = new Map(event.jobs.map((it) => [it.id, it]));
    if (event.type === "job") this.put(event.job);
    if (event.type === "deleted") this.jobs.delete(event.id);
    this.#tell(null);
  }

  /** @param {any} changed a job, known or new */
  put(changed) {
    const known = this.jobs.has(changed.id);
    this.jobs = known ? this.jobs.set(changed.id, changed) : new Map([[changed.id, changed], ...this.jobs]);
  }

  #tell(error) {
    this.error = error;
    for (const onChange of this.#followers) onChange();
  }
}

export const feed = new JobFeed();
