/** What was said in a conversation, and how long each stage of a turn took. Pure. */

/**
 * @typedef {{id: string, role: "user" | "assistant" | "tool", text: string, done: boolean, failed?: boolean,
 *   heard?: string | null, past?: boolean, call?: {id: string, name: string, arguments: string, output?: string}}} Item
 * `heard`: of an interrupted reply, what was heard of it; `past`: of a conversation that is over
 * @typedef {{ended: number, words?: number, token?: number, audio?: number}} Stages times in ms of one clock
 */

export class Turns {
  /** @type {Item[]} */
  items = [];
  /** @type {Stages[]} */
  stages = [];

  /** @param {string} id @param {Item["role"]} role @returns {Item} */
  item(id, role) {
    let found = this.items.find((it) => it.id === id);
    if (!found) {
      found = { id, role, text: "", done: false };
      this.items.push(found);
    }
    return found;
  }

  /** @param {any} event of the server @param {number} now ms */
  take(event, now) {
    TAKES[event.type]?.(this, event, now);
  }

  /** The first time that a stage of the newest turn is reached. @param {"words" | "token" | "audio"} name */
  reached(name, now) {
    const newest = this.stages.at(-1);
    if (newest) newest[name] ??= now;
  }

  /** @param {string} id @param {string} heard the beginning of its text */
  interrupted(id, heard) {
    const item = this.item(id, "assistant");
    item.heard = heard;
    item.done = true;
  }

  /** What a next conversation begins with: nothing more comes to these items. @returns {Turns} */
  ended() {
    const turns = new Turns();
    turns.items = this.items.map((it) => ({ ...it, done: true, past: true }));
    turns.stages = [...this.stages];
    return turns;
  }

  /** @returns {string} as a text file */
  get text() {
    return this.items.map((it) => `${it.role}: ${it.call ? called(it.call) : (it.heard ?? it.text)}\n`).join("");
  }
}

/** @param {NonNullable<Item["call"]>} call */
const called = ({ name, arguments: given, output }) => `${name}(${given}) = ${output ?? "?"}`;

const said = (turns, { item_id, delta }) => {
  turns.item(item_id, "assistant").text += delta;
};

const TAKES = {
  "input_audio_buffer.speech_stopped": (turns, _, now) => turns.stages.push({ ended: now }),
  "input_audio_buffer.committed": (turns, { item_id }) => turns.item(item_id, "user"),
  "conversation.item.input_audio_transcription.delta": (turns, { item_id, delta }) => {
    turns.item(item_id, "user").text += delta;
  },
  "conversation.item.input_audio_transcription.completed": (turns, { item_id, transcript }, now) => {
    Object.assign(turns.item(item_id, "user"), { text: transcript, done: true });
    turns.reached("words", now);
  },
  "conversation.item.input_audio_transcription.failed": (turns, { item_id }) => {
    Object.assign(turns.item(item_id, "user"), { failed: true, done: true });
  },
  "conversation.item.done": (turns, { item }) => {
    if (item.role === "user" && item.content?.[0]?.type === "input_text") {
      Object.assign(turns.item(item.id, "user"), { text: item.content[0].text, done: true });
    }
  },
  "response.output_audio_transcript.delta": (turns, event, now) => {
    said(turns, event);
    turns.reached("token", now);
  },
  "response.output_text.delta": (turns, event, now) => {
    said(turns, event);
    turns.reached("token", now);
  },
  "response.output_audio.delta": (turns, _, now) => turns.reached("audio", now),
  "response.function_call_arguments.done": (turns, { item_id, call_id, name, arguments: given }) => {
    turns.item(item_id, "tool").call = { id: call_id, name, arguments: given };
  },
  "response.output_item.done": (turns, { item }) => {
    if (item.type === "function_call") {
      const known = turns.item(item.id, "tool");
      known.call ??= { id: item.call_id, name: item.name, arguments: item.arguments };
      known.call.name ||= item.name;
    } else turns.item(item.id, "assistant").done = true;
  },
};
