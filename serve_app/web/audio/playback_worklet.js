/**
 * Plays 16-bit mono samples of `rate` as they come, and says what was really played: the number of samples of each
 * tag, and, in blocks of `block` samples, everything that was heard with its silences, for a recording.
 */
const TOLD_EVERY = 8; // quanta of 128 frames: 21 ms at 48 kHz

class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, block } }) {
    super();
    this.step = rate / sampleRate;
    this.queue = [];
    this.at = 0; // within the first piece, in its samples
    this.played = new Map();
    this.tape = new Int16Array(block);
    this.size = block;
    this.filled = 0;
    this.due = 0; // samples of the tape that are due
    this.quanta = 0;
    this.wasPlaying = false;
    this.port.onmessage = ({ data }) => this.told(data);
  }

  told({ samples, tag, flush }) {
    if (samples) {
      this.queue.push({ samples, tag });
      this.wasPlaying = true; // so that its end is reported even if it is very short
    }
    if (!flush) return;
    this.queue = [];
    this.at = 0;
    this.tell(true);
  }

  process(_, [[output]]) {
    for (let i = 0; i < output.length; i++) {
      output[i] = this.next();
      this.record(output[i]);
    }
    if (++this.quanta % TOLD_EVERY === 0) this.tell(false);
    return true;
  }

  next() {
    while (this.queue.length && this.at >= this.queue[0].samples.length) {
      this.at -= this.queue[0].samples.length;
      this.queue.shift();
    }
    const piece = this.queue[0];
    if (!piece) {
      this.at = 0;
      return 0;
    }
    const whole = Math.floor(this.at);
    const after = piece.samples[whole + 1] ?? this.queue[1]?.samples[0] ?? 0;
    const sample = piece.samples[whole] + (after - piece.samples[whole]) * (this.at - whole);
    this.at += this.step;
    this.played.set(piece.tag, (this.played.get(piece.tag) ?? 0) + this.step);
    return sample / 32768;
  }

  record(sample) {
    this.due += this.step;
    if (this.due < 1) return;
    this.due -= 1;
    this.tape[this.filled++] = sample * 32767;
    if (this.filled < this.size) return;
    this.port.postMessage({ tape: this.tape }, [this.tape.buffer]);
    this.tape = new Int16Array(this.size);
    this.filled = 0;
  }

  tell(flushed) {
    const playing = this.queue.length > 0;
    if (!playing && !this.wasPlaying && !flushed) return;
    this.wasPlaying = playing;
    const played = [...this.played].map(([tag, count]) => [tag, Math.round(count)]);
    this.port.postMessage({ played, playing, flushed });
  }
}

registerProcessor("playback", Playback);
