/** What exists in an AudioWorkletGlobalScope; TypeScript's DOM library does not have it. */
declare const sampleRate: number;
declare const currentTime: number;
declare const currentFrame: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
  constructor(options?: any);
}
declare function registerProcessor(name: string, processor: new (options?: any) => AudioWorkletProcessor): void;
