/** The words of a live session: finals that stay, one partial, and files made of them. */

/** @typedef {{word: string, start_ms: number, end_ms: number, confidence: number}} Word */
/** @typedef {{id: number, start_ms: number, end_ms: number, text: string, words: Word[], speaker?: string}} Caption */

export class Captions {
  /** @type {Caption[]} */
  finals = [];
  /** @type {Caption | null} */
  partial = null;

  /** @param {any} event `partial` or `final` of the server */
  take(event) {
    const caption = captionOf(event, this.finals.length);
    if (event.type === "partial") this.partial = caption;
    else {
      this.partial = null;
      if (caption.text) this.finals = [...this.finals, caption];
    }
  }

  get text() {
    return this.finals.map((it) => it.text).join("\n");
  }

  /** @param {"txt" | "srt" | "vtt" | "json"} form @returns {string} */
  as(form) {
    return FORMS[form](this.finals);
  }
}

function captionOf({ start_ms, end_ms, text, words = [], speaker }, id) {
  return { id, start_ms, end_ms, text, words, speaker };
}

/** A time as subtitles have it: `00:01:02,345`. @param {number} ms @param {string} mark before the milliseconds */
export function clock(ms, mark) {
  const whole = Math.max(0, Math.round(ms));
  const parts = [whole / 3_600_000, (whole / 60_000) % 60, (whole / 1_000) % 60].map((it) => String(Math.floor(it)).padStart(2, "0"));
  return `${parts.join(":")}${mark}${String(whole % 1_000).padStart(3, "0")}`;
}

const spoken = (it) => (it.speaker ? `${it.speaker}: ${it.text}` : it.text);
/** WebVTT's cue text has markup; these two begin it. */
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const span = (it, mark) => `${clock(it.start_ms, mark)} --> ${clock(it.end_ms, mark)}`;

const FORMS = {
  txt: (finals) => finals.map((it) => `${spoken(it)}\n`).join(""),
  srt: (finals) => finals.map((it, i) => `${i + 1}\n${span(it, ",")}\n${spoken(it)}\n`).join("\n"),
  vtt: (finals) => `WEBVTT\n\n${finals.map((it) => `${span(it, ".")}\n${escaped(spoken(it))}\n`).join("\n")}`,
  json: (finals) => `${JSON.stringify({ segments: finals }, null, 2)}\n`,
};
