/** Corrections of one recording: what is saved, what can be undone, and what is not saved yet. */
import { correct, result, revisions } from "../server/jobs.js";

const DRAFT = "voxray-draft:";

export class Editing {
  /** @type {any} the newest result */
  result = null;
  etag = "";
  /** Revisions that undo and redo go to. */
  #undo = /** @type {number[]} */ ([]);
  #redo = /** @type {number[]} */ ([]);

  /** @param {string} id of the job */
  constructor(id) {
    this.id = id;
  }

  async load() {
    const [newest, known] = await Promise.all([result(this.id), revisions(this.id)]);
    this.#take(newest);
    this.#undo = before(newest.result.revision, known.data);
    this.#redo = [];
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get canRedo() {
    return this.#redo.length > 0;
  }

  /** @param {any[]} edits */
  async edit(edits) {
    const from = this.result.revision;
    this.#take(await correct(this.id, this.etag, { edits }));
    this.#undo.push(from);
    this.#redo = [];
  }

  undo() {
    return this.#go(this.#undo, this.#redo);
  }

  redo() {
    return this.#go(this.#redo, this.#undo);
  }

  async #go(from, to) {
    const here = this.result.revision;
    this.#take(await correct(this.id, this.etag, { revert_to: from.at(-1) }));
    from.pop();
    to.push(here);
  }

  #take({ result: newest, etag }) {
    this.result = newest;
    this.etag = etag;
  }

  /** What a person has typed and not saved; it survives a reload. */
  get draft() {
    return JSON.parse(localStorage.getItem(DRAFT + this.id) ?? "null");
  }

  /** @param {{segment: number, text: string} | null} typed */
  set draft(typed) {
    if (typed) localStorage.setItem(DRAFT + this.id, JSON.stringify(typed));
    else localStorage.removeItem(DRAFT + this.id);
  }
}

/**
 * The revisions before this one, the oldest first, as undo goes through them. One that went back to another has what
 * that one has.
 * @param {number} newest @param {{number: number, parent: number, edits: number}[]} known
 */
export function before(newest, known) {
  const revision = new Map(known.map((it) => [it.number, it]));
  const content = (number) => {
    let at = number;
    while (revision.get(at)?.edits === 0) at = revision.get(at).parent;
    return at;
  };
  const found = [];
  for (let at = content(newest); revision.has(at); at = content(revision.get(at).parent)) found.unshift(revision.get(at).parent);
  return found;
}
