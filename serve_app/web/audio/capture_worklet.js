/**
 * Captures at the device's own rate and gives 16-bit mono at `rate`, in blocks of `block` samples. Linear
 * interpolation after a moving average; its position is kept from one quantum of 128 frames to the next, so that the
 * number of samples does not drift.
 */
class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, block } }) {
    super();
    this.step = sampleRate / rate;
    this.position = 0; // of the next output sample, in input samples after `last`
    this.last = 0;
    this.smooth = 0;
    this.share = Math.min(1, 1.4 / this.step); // one-pole low-pass against aliases
    this.size = block;
    this.block = new Int16Array(block);
    this.filled = 0;
    this.squares = 0;
    this.muted = false;
    this.over = false;
    this.port.onmessage = ({ data }) => this.told(data);
  }

  told(data) {
    if (data.muted !== undefined) this.muted = data.muted;
    if (!data.end) return;
    this.over = true;
    if (this.filled) this.give(this.block.slice(0, this.filled));
    this.port.postMessage({ ended: true });
  }

  process([input]) {
    const length = input[0]?.length ?? 0;
    for (let i = 0; i < length; i++) this.take(this.mixed(input, i));
    return !this.over;
  }

  mixed(channels, i) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    return this.muted ? 0 : sum / channels.length;
  }

  take(sample) {
    this.smooth += this.share * (sample - this.smooth);
    while (this.position <= 1) {
      this.put(this.last + (this.smooth - this.last) * this.position);
      this.position += this.step;
    }
    this.position -= 1;
    this.last = this.smooth;
  }

  put(sample) {
    const bounded = Math.max(-1, Math.min(1, sample));
    this.squares += bounded * bounded;
    this.block[this.filled++] = Math.round(bounded * 32767);
    if (this.filled < this.size) return;
    this.give(this.block); // it is gone then
    this.block = new Int16Array(this.size);
  }

  give(samples) {
    const level = Math.sqrt(this.squares / samples.length);
    this.port.postMessage({ samples, level }, [samples.buffer]);
    this.filled = 0;
    this.squares = 0;
  }
}

registerProcessor("capture", Capture);
