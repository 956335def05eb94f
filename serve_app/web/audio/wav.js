/** WAV files of 16-bit samples (RIFF, http://soundfile.sapp.org/doc/WaveFormat). */

const HEADER_BYTES = 44;

/**
 * @param {BlobPart[]} parts the samples, little-endian, interleaved
 * @param {number} bytes how many these are
 * @param {number} rate Hz
 * @param {number} [channels]
 */
export function wav(parts, bytes, rate, channels = 1) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const text = (at, word) => {
    for (let i = 0; i < word.length; i++) view.setUint8(at + i, word.charCodeAt(i));
  };
  text(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels * 2, true);
  view.setUint16(32, channels * 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return new Blob([view.buffer, ...parts], { type: "audio/wav" });
}

/** Keeps samples as they come, for a file at the end. The browser moves what is packed into a Blob out of memory. */
export class Tape {
  /** @param {number} rate Hz @param {number} [channels] */
  constructor(rate, channels = 1) {
    this.rate = rate;
    this.channels = channels;
    this.packed = [];
    this.loose = [];
    this.bytes = 0;
  }

  /** @param {Int16Array} samples interleaved; not changed later */
  add(samples) {
    this.loose.push(samples);
    this.bytes += samples.byteLength;
    if (this.loose.length < 100) return;
    this.packed.push(new Blob(this.loose));
    this.loose = [];
  }

  get seconds() {
    return this.bytes / 2 / this.channels / this.rate;
  }

  /** @returns {Blob} */
  file() {
    return wav([...this.packed, ...this.loose], this.bytes, this.rate, this.channels);
  }
}
