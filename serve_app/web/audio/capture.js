/** Audio from a microphone, a browser tab or a file, as 16-bit mono samples. */

const MODULE = new URL("./capture_worklet.js", import.meta.url);

/** Why there is no audio: `insecure`, `denied`, `absent`, `busy`, `no_tab_audio`, `unsupported`, `not_audio`. */
export class CaptureError extends Error {
  /** @param {string} code */
  constructor(code) {
    super(code);
    this.code = code;
  }
}

const REASONS = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "absent",
  OverconstrainedError: "absent",
  NotReadableError: "busy",
  AbortError: "denied",
};

/** @returns {Promise<MediaDeviceInfo[]>} microphones; without names until one has been permitted */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((it) => it.kind === "audioinput");
}

/** @param {string} [deviceId] @param {boolean} [cancelEcho] @returns {Promise<MediaStream>} */
export async function microphone(deviceId = "", cancelEcho = true) {
  if (!window.isSecureContext || !navigator.mediaDevices) throw new CaptureError("insecure");
  const audio = { echoCancellation: cancelEcho, noiseSuppression: cancelEcho, autoGainControl: true };
  const chosen = deviceId ? { deviceId: { exact: deviceId } } : {};
  return asked(() => navigator.mediaDevices.getUserMedia({ audio: { ...audio, ...chosen } }));
}

/** The sound of a tab that the person chooses. @returns {Promise<MediaStream>} */
export async function tabAudio() {
  if (!window.isSecureContext) throw new CaptureError("insecure");
  if (!navigator.mediaDevices?.getDisplayMedia) throw new CaptureError("unsupported");
  const stream = await asked(() => navigator.mediaDevices.getDisplayMedia({ video: true, audio: true }));
  for (const track of stream.getVideoTracks()) track.stop();
  if (stream.getAudioTracks().length) return stream;
  throw new CaptureError("no_tab_audio");
}

async function asked(ask) {
  try {
    return await ask();
  } catch (error) {
    throw new CaptureError(REASONS[error.name] ?? "denied");
  }
}

/**
 * One capture, from `begin` to `end`. Make it in a click: browsers start audio only there.
 *
 * `onAudio(samples, level)` gets an Int16Array of `block` samples at `rate` Hz, and its root mean square, 0 to 1.
 * `onEnd()` is called when the source ends by itself: the file is over, or the microphone was unplugged.
 */
export class Capture {
  /** @param {{rate?: number, block?: number, onAudio: (samples: Int16Array, level: number) => void, onEnd?: () => void, context?: AudioContext}} options */
  constructor({ rate = 16_000, block = rate / 10, onAudio, onEnd = () => {}, context }) {
    this.options = { rate, block };
    this.onAudio = onAudio;
    this.onEnd = onEnd;
    this.owned = !context;
    this.context = context ?? new AudioContext();
    this.ready = this.context.audioWorklet?.addModule(MODULE); // absent without HTTPS
    this.ready?.catch(() => {}); // closed before it was loaded
    this.stream = null;
    this.node = null;
    /** @type {((value?: any) => void) | null} */
    this.flushed = null;
    this.over = false;
  }

  /** @param {MediaStream} stream its tracks end with the capture */
  async fromStream(stream) {
    this.stream = stream;
    for (const track of stream.getAudioTracks()) track.addEventListener("ended", () => this.ended());
    await this.connect(this.context.createMediaStreamSource(stream));
  }

  /** The file's sound at normal speed, heard as well. @param {Blob} file */
  async fromFile(file) {
    const source = this.context.createBufferSource();
    source.buffer = await this.decoded(file);
    source.onended = () => this.ended();
    source.connect(this.context.destination);
    await this.connect(source);
    source.start();
  }

  async decoded(file) {
    try {
      return await this.context.decodeAudioData(await file.arrayBuffer());
    } catch {
      throw new CaptureError("not_audio");
    }
  }

  async connect(source) {
    await this.ready;
    await this.context.resume();
    if (this.over) return;
    const options = { numberOfOutputs: 0, processorOptions: this.options };
    this.node = new AudioWorkletNode(this.context, "capture", options);
    this.node.port.onmessage = ({ data }) => this.got(data);
    source.connect(this.node);
  }

  got({ samples, level, ended }) {
    if (samples) this.onAudio(samples, level);
    if (ended) this.flushed?.();
  }

  /** Silence in place of sound, so that the server still hears time pass. @param {boolean} muted */
  mute(muted) {
    this.node?.port.postMessage({ muted });
  }

  ended() {
    if (!this.over) this.onEnd();
  }

  /** After the last samples have been given; every track is stopped. */
  async end() {
    if (this.over) return;
    this.over = true;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    if (this.node && this.context.state === "running") await this.last();
    this.node?.disconnect();
    if (this.owned) await this.context.close();
  }

  async last() {
    const flushed = new Promise((resolve) => (this.flushed = resolve));
    this.node.port.postMessage({ end: true });
    await Promise.race([flushed, new Promise((resolve) => setTimeout(resolve, 500))]);
  }
}
