"use strict";
// One clip at a time. Every change is sent at once, in order, and again until the server has it.

const $ = (id) => document.getElementById(id);
const RATINGS = [1, 2, 3, 4, 5];
const AGAIN = 2000; // milliseconds between two tries
const TYPING = 600; // milliseconds without a key until a comment is sent

let study = null; // what /state said, answers included
let at = 0; // index of the clip that is shown; study.answers.length when all is done
let since = null; // when the clip was last seen to begin, for the time taken
let waiting = 0; // answers that are not saved yet
let queue = Promise.resolve();
let typing = null;
const clips = new Map(); // index -> promise of an object URL

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function fault(text) {
  $("fault").hidden = !text;
  $("fault").textContent = text;
}

async function ask(path, options) {
  const reply = await fetch(path, options);
  if (reply.ok) return reply;
  let text = `error ${reply.status}`;
  try {
    text = (await reply.json()).error;
  } catch {}
  const error = new Error(text);
  error.final = reply.status === 400 || reply.status === 403;
  throw error;
}

// -- what is shown ---------------------------------------------------------------------------

const isDone = (answer) => answer.rating !== null && (!study.real_or_fake || answer.real !== null);

function showState() {
  const total = study.answers.length;
  const rated = study.answers.filter(isDone).length;
  $("progress").max = total;
  $("progress").value = rated;
  $("rated").textContent = `${rated} of ${total} rated`;
  if (at < total) {
    $("next").disabled = !isDone(study.answers[at]);
    $("next").textContent = at === total - 1 ? "Finish" : "Next";
    $("back").disabled = at === 0;
  }
}

function load(index) {
  if (!clips.has(index)) {
    const loading = ask(`/clip/${index + 1}`)
      .then((reply) => reply.blob())
      .then((blob) => URL.createObjectURL(blob));
    loading.catch(() => clips.delete(index));
    clips.set(index, loading);
  }
  return clips.get(index);
}

function forget() {
  for (const [index, loading] of clips) {
    if (Math.abs(index - at) > 1) {
      clips.delete(index);
      loading.then(URL.revokeObjectURL, () => {});
    }
  }
}

async function showClip(index) {
  const video = $("clip");
  setReady(false);
  video.removeAttribute("src");
  video.load();
  for (;;) {
    try {
      const url = await load(index);
      if (at !== index) return;
      video.src = url;
      fault("");
      break;
    } catch (error) {
      if (at !== index) return;
      fault(`The clip could not be loaded (${error.message}). Trying again.`);
      await pause(AGAIN);
      if (at !== index) return;
    }
  }
  setPaused(false);
  forget();
  if (index + 1 < study.answers.length) load(index + 1).catch(() => {});
}

function show(index) {
  at = index;
  const total = study.answers.length;
  $("task").hidden = at >= total;
  $("done").hidden = at < total;
  $("keys").hidden = at >= total;
  if (at >= total) {
    $("clip").pause();
    $("place").textContent = "Done";
  } else {
    const answer = study.answers[at];
    $("place").textContent = `Clip ${at + 1} of ${total}`;
    for (const input of document.querySelectorAll("input[name=rating]"))
      input.checked = Number(input.value) === answer.rating;
    for (const input of document.querySelectorAll("input[name=real]"))
      input.checked = input.value === String(answer.real);
    $("comment").value = answer.comment;
    showClip(at);
  }
  showState();
  $("place").focus();
}

// Nobody rates a clip that is not there yet.
function setReady(ready) {
  $("rating").disabled = $("real").disabled = !ready;
  since = ready && !document.hidden ? performance.now() : null;
}

function setPaused(paused) {
  $("pause").textContent = paused ? "Play" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  if (paused) $("clip").pause();
  else $("clip").play().catch(() => setPaused(true));
}

// -- time taken: while the clip is loaded and the page is in sight ------------------------------

function countTime() {
  if (since !== null && at < study.answers.length)
    study.answers[at].seconds += (performance.now() - since) / 1000;
  since = document.hidden || $("clip").readyState < 2 ? null : performance.now();
}

// -- answers -----------------------------------------------------------------------------------

function save() {
  clearTimeout(typing);
  typing = null;
  if (at >= study.answers.length) return;
  countTime();
  const answer = study.answers[at];
  const body = JSON.stringify({ position: at + 1, ...answer });
  waiting += 1;
  $("saved").textContent = "saving";
  queue = queue.then(() => send(body));
}

async function send(body) {
  for (;;) {
    try {
      await ask("/answer", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      waiting -= 1;
      if (waiting === 0) {
        $("saved").textContent = "saved";
        fault("");
      }
      return;
    } catch (error) {
      const more = error.final ? "Reload the page." : "Trying again.";
      fault(`Your answer is not saved yet: ${error.message}. ${more}`);
      $("saved").textContent = "not saved";
      await pause(AGAIN);
    }
  }
}

function rate(value) {
  study.answers[at].rating = value;
  save();
  showState();
}

function judge(real) {
  study.answers[at].real = real;
  save();
  showState();
}

function check(name, value) {
  const input = document.querySelector(`input[name=${name}][value="${value}"]`);
  if (input.matches(":disabled")) return;
  input.checked = true;
  input.dispatchEvent(new Event("change"));
}

function go(index) {
  if (index < 0 || (index > at && !isDone(study.answers[at]))) return;
  save();
  show(index);
}

// -- start ---------------------------------------------------------------------------------------

function connect() {
  for (const value of RATINGS) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const text = document.createElement("span");
    Object.assign(input, { type: "radio", name: "rating", value: String(value) });
    if (value === 1) input.setAttribute("aria-describedby", "worst");
    if (value === RATINGS.length) input.setAttribute("aria-describedby", "best");
    input.addEventListener("change", () => rate(value));
    text.textContent = String(value);
    label.append(input, text);
    $("scale").append(label);
  }
  for (const input of document.querySelectorAll("input[name=real]"))
    input.addEventListener("change", () => judge(input.value === "true"));
  $("comment").addEventListener("input", () => {
    study.answers[at].comment = $("comment").value;
    clearTimeout(typing);
    typing = setTimeout(save, TYPING);
  });
  $("comment").addEventListener("change", () => typing !== null && save());
  $("next").addEventListener("click", () => go(at + 1));
  $("back").addEventListener("click", () => go(at - 1));
  $("again").addEventListener("click", () => show(study.answers.length - 1));
  $("pause").addEventListener("click", () => setPaused(!$("clip").paused));
  $("clip").addEventListener("click", () => setPaused(!$("clip").paused));
  $("clip").addEventListener("loadeddata", () => setReady(true));
  $("clip").addEventListener("error", () => {
    if ($("clip").getAttribute("src")) fault("This browser cannot play the clip. Try another one.");
  });
  $("form").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("visibilitychange", countTime);
  document.addEventListener("keydown", key);
  window.addEventListener("beforeunload", (event) => {
    if (typing !== null) save();
    if (waiting > 0) event.preventDefault();
  });
}

function key(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || at >= study.answers.length) return;
  if (event.target === $("comment")) return;
  const pressed = event.key.toLowerCase();
  if (RATINGS.map(String).includes(pressed)) check("rating", pressed);
  else if (study.real_or_fake && pressed === "r") check("real", "true");
  else if (study.real_or_fake && pressed === "s") check("real", "false");
  else if (pressed === "p") setPaused(!$("clip").paused);
  else if (pressed === "enter" && event.target.tagName !== "BUTTON") go(at + 1);
  else return;
  event.preventDefault();
}

async function start() {
  for (;;) {
    try {
      study = await (await ask("/state")).json();
      break;
    } catch (error) {
      fault(`The study could not be loaded: ${error.message}.`);
      if (error.final) return;
      await pause(AGAIN);
    }
  }
  fault("");
  connect();
  $("question").textContent = study.question;
  $("real").hidden = !study.real_or_fake;
  $("comment").maxLength = study.most_comment;
  const keys = study.real_or_fake ? "1 to 5, R, S, P (pause), Enter (next)" : "1 to 5, P (pause), Enter (next)";
  $("keys").textContent = `Keys: ${keys}. Rater: ${study.rater}`;
  const first = study.answers.findIndex((answer) => !isDone(answer));
  show(first < 0 ? study.answers.length : first);
}

start();
