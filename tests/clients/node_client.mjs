// openai-node and @openai/agents, unchanged but for their base URL; prints JSON of what they got.
// `node node_client.mjs HOST:PORT speech.wav`

import fs from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from "@openai/agents/realtime";

const [address, file] = process.argv.slice(2);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function rest() {
  const client = new OpenAI({ baseURL: `http://${address}/v1`, apiKey: "any", maxRetries: 0 });
  const recording = () => ({ file: fs.createReadStream(file), model: "m" });
  const got = { events: [], chat: "" };
  got.text = (await client.audio.transcriptions.create(recording())).text;
  const events = await client.audio.transcriptions.create({ ...recording(), stream: true });
  for await (const event of events) got.events.push(event.type);
  const speech = await client.audio.speech.create({ input: "Hi there.", voice: "alloy", model: "m" });
  got.speech = (await speech.arrayBuffer()).byteLength;
  const messages = [{ role: "user", content: "hi" }];
  const chunks = await client.chat.completions.create({ model: "m", messages, stream: true });
  for await (const chunk of chunks) got.chat += chunk.choices[0]?.delta?.content ?? "";
  const secret = await client.realtime.clientSecrets.create({ session: { type: "realtime" } });
  return { ...got, secret: secret.value };
}

async function agent(apiKey) {
  const url = `ws://${address}/v1/realtime?model=gpt-realtime`;
  const transport = new OpenAIRealtimeWebSocket({ url, useInsecureApiKey: true });
  const session = new RealtimeSession(new RealtimeAgent({ name: "a", instructions: "Be brief." }), {
    transport,
    model: "gpt-realtime",
  });
  const got = { errors: [], audio: 0, replies: 0 };
  session.on("audio", (event) => (got.audio += event.data.byteLength));
  session.on("error", (event) => got.errors.push(JSON.stringify(event)));
  session.on("transport_event", (event) => (got.replies += event.type === "response.done"));
  await session.connect({ apiKey, url });
  const pcm = fs.readFileSync(file).subarray(44);
  for (let at = 0; at < pcm.length; at += 2400) {
    session.sendAudio(new Uint8Array(pcm.subarray(at, at + 2400)).buffer);
    await pause(15);
  }
  while (got.replies < 1) await pause(50);
  session.sendMessage("and hello in writing");
  while (got.replies < 2) await pause(50);
  session.interrupt();
  await pause(300);
  got.history = session.history.map((item) => [item.role, item.content[0].transcript ?? item.content[0].text]);
  session.close();
  return got;
}

const got = await rest();
console.log(JSON.stringify({ rest: got, agent: await agent(got.secret) }));
process.exit(0);
