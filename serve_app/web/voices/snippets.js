/** The same request in other languages. The key stays in the environment. Pure. */
const KEY = "VOXRAY_API_KEY";

/** A string for a shell, in single quotes. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** @param {string} server @param {any} wanted @param {boolean} needsKey */
export function curl(server, wanted, needsKey) {
  const key = needsKey ? ` \\\n  -H "Authorization: Bearer $${KEY}"` : "";
  return `curl -s ${server}v1/audio/speech${key} \\\n  -H "Content-Type: application/json" \\\n  -d ${quoted(JSON.stringify(wanted))} -o speech.${wanted.response_format}\n`;
}

/** With OpenAI's library. */
export function python(server, wanted, needsKey) {
  const { input, voice, response_format, speed, style } = wanted;
  const key = needsKey ? `os.environ["${KEY}"]` : '"unused"';
  const given = { voice: voice ?? "default", input, response_format, ...(speed ? { speed } : {}) };
  const fields = Object.entries(given).map(([name, value]) => `    ${name}=${JSON.stringify(value)},\n`);
  const extra = style ? `    extra_body={"style": ${JSON.stringify(style)}},\n` : ""; // not a field of OpenAI's
  return `${needsKey ? "import os\n\n" : ""}from openai import OpenAI\n\nclient = OpenAI(base_url="${server}v1", api_key=${key})\nspeech = client.audio.speech.create(\n    model="voxray",\n${fields.join("")}${extra})\nspeech.write_to_file("speech.${response_format}")\n`;
}

/** For Node, without a library. */
export function javascript(server, wanted, needsKey) {
  const key = needsKey ? `\n    Authorization: \`Bearer \${process.env.${KEY}}\`,` : "";
  return `import { writeFile } from "node:fs/promises";\n\nconst answer = await fetch("${server}v1/audio/speech", {\n  method: "POST",\n  headers: {${key}\n    "Content-Type": "application/json",\n  },\n  body: JSON.stringify(${JSON.stringify(wanted)}),\n});\nawait writeFile("speech.${wanted.response_format}", Buffer.from(await answer.arrayBuffer()));\n`;
}
