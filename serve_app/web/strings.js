/** Every text of the page, by view. A value may be a function of what it tells of. */

export const app = {
  title: "voxray",
  navigation: "Views",
  skip: "Skip to the content",
  views: {
    start: "Start",
    live: "Live",
    recordings: "Recordings",
    conversation: "Conversation",
    voices: "Voices",
    server: "Server",
  },
  signOut: "Sign out",
  signedInAs: (tenant) => `Signed in as ${tenant}`,
  reference: "API reference",
  notFound: "There is no such view.",
  copied: "Copied",
  close: "Close",
  retryIn: (seconds) => `Trying again in ${seconds} s`,
  tryAgain: "Try again",
  loading: "Loading…",
};

export const signIn = {
  title: "Sign in",
  why: "This server needs an API key. The page exchanges it for a session and does not keep it.",
  key: "API key",
  submit: "Sign in",
  where: "Whoever runs this server makes keys with “voxray keys create”.",
};

export const start = {
  title: "Speech on your own machines",
  intro: "Nothing that you say or upload leaves this server.",
  go: {
    live: ["Live captions", "Speak, or share a tab’s sound, and read along."],
    recordings: ["Transcribe recordings", "Drop files, get text with speakers and subtitles."],
    conversation: ["Have a conversation", "Talk with the server, and interrupt it."],
    voices: ["Make speech", "Turn text into audio, and compare voices."],
    server: ["Look at the server", "Load, models, usage and keys."],
  },
  engines: "What answers here",
  kinds: { transcriber: "Words", chat: "Replies", speaker: "Voice", diarizer: "Speakers" },
  /** What an engine is, honestly; others are named only. */
  honesty: {
    pocketsphinx: "embedded demo recogniser: understands little of open speech",
    espeak: "embedded demo voice: sounds like a robot",
    sim: "simulated: no model, it makes its answers up",
    eliza: "embedded demo: answers by rules, understands nothing",
    bic: "embedded: tells clearly different speakers apart",
    "voxtral-realtime": "Voxtral Realtime on vLLM",
    voxtral: "Voxtral on vLLM",
    "voxtral-transformers": "Voxtral on transformers",
    vllm: "a chat model on vLLM",
    openai: "a chat model at another server",
    kokoro: "Kokoro",
    pyannote: "pyannote",
  },
  states: { warm: "ready", loading: "loading", absent: "no weights", failed: "failed", starting: "starting" },
  sample: "Try it with a sample",
  sampleWhy: "No recording at hand? The server’s own voice makes one, and transcribes it.",
  sampleMaking: "The server speaks…",
  sampleText:
    "Welcome to this short recording. It was spoken by the server that will now write it down. " +
    "You can click any word to hear it, correct what is wrong, and download subtitles.",
  sampleName: "Sample recording.wav",
};
