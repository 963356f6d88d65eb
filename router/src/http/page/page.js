// The chat of the page at `/`. It uses the API that every other client uses: /v1/models and /v1/chat/completions.

const at = (id) => document.getElementById(id);
const [model, models, about, log, form, message, send, stop] =
  ["model", "models", "about", "log", "form", "message", "send", "stop"].map(at);

/** What was said, as the API takes it. */
let conversation = [];
/** Ends the answer that is being written. */
let running = null;
/** What /v1/models says of each name. */
let known = new Map();

const KINDS = { SlmModel: "model", LoraAdapter: "adapter", SwarmRoute: "route" };

function headers(more = {}) {
  const token = at("token").value.trim();
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

/** Why a request was refused, in the server's own words. */
async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status} ${response.statusText}`;
  }
}

async function loadModels() {
  const response = await fetch("v1/models", { headers: headers() });
  if (!response.ok) {
    if (response.status === 401) at("settings").open = true;
    about.textContent = await reason(response);
    return;
  }
  const list = (await response.json()).data;
  known = new Map(list.map((entry) => [entry.id, entry.x_slm]));
  models.replaceChildren(...list.map((entry) => new Option(describe(entry.x_slm), entry.id)));
  // A route finds the expert by itself: the best to begin with.
  const first = list.find((entry) => entry.x_slm.kind === "SwarmRoute") ?? list[0];
  if (!model.value && first) model.value = first.id;
  tellAbout();
}

function describe(entry) {
  const kind = KINDS[entry.kind] ?? entry.kind;
  const of = entry.model ? ` on ${entry.model}` : "";
  const description = entry.description ? `: ${entry.description}` : "";
  return `${kind}${of}${entry.ready ? "" : ", not ready"}${description}`;
}

function tellAbout() {
  const entry = known.get(model.value.trim());
  about.textContent = entry ? describe(entry) : "";
}

function add(role, text) {
  const article = document.createElement("article");
  const words = document.createElement("p");
  article.className = role;
  words.textContent = text;
  article.append(words);
  log.append(article);
  article.scrollIntoView({ block: "end" });
  return { article, words };
}

/** A line below an answer. */
function facts(article, text) {
  const line = document.createElement("div");
  line.className = "facts";
  line.textContent = text;
  article.append(line);
}

/** Folded text above an answer: what the model thought. */
function thoughts(article) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const text = document.createElement("pre");
  summary.textContent = "Thoughts";
  details.append(summary, text);
  article.prepend(details);
  return text;
}

function body() {
  const request = {
    model: model.value.trim(),
    messages: conversation,
    stream: true,
    stream_options: { include_usage: true },
    explain: true,
  };
  const system = at("system").value;
  if (system) request.messages = [{ role: "system", content: system }, ...conversation];
  for (const [id, field] of [["temperature", "temperature"], ["max-tokens", "max_tokens"]]) {
    if (at(id).value !== "") request[field] = Number(at(id).value);
  }
  return JSON.stringify(request);
}

/** The data of each event of a stream, parsed. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

function decided(decision) {
  const chosen = decision.chosen;
  if (!chosen) return "";
  const kind = chosen.kind === "LoraAdapter" ? `adapter on ${chosen.model}` : "base model";
  return `${chosen.name} (${kind}), ${decision.reason}`;
}

function speed(usage, begun, first) {
  const now = performance.now();
  const seconds = (now - first) / 1000;
  const rate = usage.completion_tokens > 1 && seconds > 0 ? (usage.completion_tokens - 1) / seconds : 0;
  const tokens = `${usage.completion_tokens} tokens`;
  return `${tokens}, ${rate.toFixed(1)} tokens/s, first after ${Math.round(first - begun)} ms, ${usage.prompt_tokens} in the prompt`;
}

async function answer(article, words, signal) {
  const begun = performance.now();
  const request = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: body(), signal };
  const response = await fetch("v1/chat/completions", request);
  if (!response.ok) throw new Error(await reason(response));
  let [first, thought] = [0, null];
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    if (event.x_slm_decision) facts(article, decided(event.x_slm_decision));
    const delta = event.choices[0]?.delta ?? {};
    if (delta.reasoning_content) {
      thought ??= thoughts(article);
      thought.textContent += delta.reasoning_content;
    }
    if (delta.content || delta.reasoning_content) first ||= performance.now();
    if (delta.content) {
      words.textContent += delta.content;
      article.scrollIntoView({ block: "end" });
    }
    if (event.choices[0]?.finish_reason === "length") facts(article, "cut: no more tokens were allowed");
    if (event.usage) facts(article, speed(event.usage, begun, first || performance.now()));
  }
}

function busy(controller) {
  running = controller;
  send.hidden = controller !== null;
  stop.hidden = controller === null;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = message.value.trim();
  if (!text || running) return;
  const controller = new AbortController();
  busy(controller);
  message.value = "";
  add("user", text);
  conversation.push({ role: "user", content: text });
  const { article, words } = add("assistant", "");
  try {
    await answer(article, words, controller.signal);
  } catch (error) {
    if (controller.signal.aborted) {
      facts(article, "stopped");
    } else {
      article.classList.add("failed");
      words.textContent += `${words.textContent ? "\n" : ""}${error.message}`;
    }
  }
  if (article.classList.contains("failed")) {
    // The question may be asked again, of another model.
    conversation.pop();
    message.value ||= text;
  } else if (controller === running) {
    conversation.push({ role: "assistant", content: words.textContent });
  }
  if (controller === running) busy(null);
  message.focus();
});

message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
stop.addEventListener("click", () => running?.abort());
at("clear").addEventListener("click", () => {
  running?.abort();
  busy(null);
  conversation = [];
  log.replaceChildren();
  message.focus();
});
model.addEventListener("input", tellAbout);
model.addEventListener("focus", () => loadModels().catch((error) => { about.textContent = error.message; }));
at("token").addEventListener("change", () => loadModels());
loadModels().catch((error) => { about.textContent = error.message; });
