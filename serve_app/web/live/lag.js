/** How long after it was spoken a word is on the screen. */

/** Moments that are remembered: 100 s of audio in blocks of 100 ms. */
const KEPT = 1_000;

export class Lag {
  #moments = [];
  #samples = 0;

  /** @param {number} rate Hz */
  constructor(rate) {
    this.rate = rate;
  }

  /** These samples were captured just now. @param {number} samples @param {number} now ms */
  heard(samples, now) {
    this.#samples += samples;
    this.#moments.push({ untilMs: (this.#samples * 1000) / this.rate, at: now });
    if (this.#moments.length > KEPT) this.#moments.shift();
  }

  /** Between the capture of what is at `audioMs` and `now`, in ms; null if that is forgotten. */
  of(audioMs, now) {
    const moment = this.#moments.find((it) => it.untilMs >= audioMs);
    return moment ? Math.max(0, now - moment.at) : null;
  }
}
