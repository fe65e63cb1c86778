// The page: what the server says each second, the controls, and the keys.

import { act, acts, getPicture, getState, hush, order, post, say, upload } from "./api.js";
import * as landmarks from "./landmarks.js";
import * as settings from "./settings.js";
import * as viewer from "./viewer.js";

const EVERY = 1000; // milliseconds between two questions to the server
const STALE = 1000; // milliseconds after which a picture must no longer look live,
const STALE_FRAMES = 4; // at least as long as so many frames of a slow clip take
const LOOK = 200; // milliseconds between two looks at that

const BEFORE_START = ["driving", "loop", "motion", "smooth", "size"];

const $ = (id) => document.getElementById(id);

let server = null; // what it said last
let answers = null; // whether it still does; null: nobody has asked yet
let asked = 0;
let problem = "";
let pictures = null; // which ones are shown
let wake = () => {}; // asks the server at once

// -- the state -----------------------------------------------------------------------------------

function stateNow() {
  const frame = viewer.newest();
  const stale = Math.max(STALE, (1000 * STALE_FRAMES) / (server?.rate ?? Infinity));
  if (server?.running && frame?.age <= stale) return [frame.state, frame.why];
  if (answers === null) return ["no connection", "Connecting."];
  if (!answers) return ["no connection", "The server does not answer."];
  if (!server.running) return ["stopped", server.metrics ? "The stream has ended." : "Nothing runs yet."];
  const { state, why } = server.metrics ?? { state: "warming up", why: "" };
  if (!frame && state === "warming up") return [state, why];
  return ["no connection", frame ? "No new picture comes." : "No picture has come yet."];
}

function showState() {
  const [state, why] = stateNow();
  setText("state", state);
  setText("state-here", state);
  setText("why", why);
  document.documentElement.dataset.state = state;
  document.title = `${state} – sonomime`;
  const covers = { "no connection": "NO CONNECTION", stopped: viewer.newest() ? "STOPPED" : "" };
  viewer.cover(covers[state] ?? "");
}

/** Without a change nothing is read aloud. */
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// -- numbers -------------------------------------------------------------------------------------

function showNumbers() {
  const { metrics, viewers, recording } = server;
  const ms = (value) => (value < 100 ? value.toFixed(1) : value.toFixed(0));
  const { p50, p95, p99 } = metrics?.latency_ms ?? {};
  const dropped = Object.entries(metrics?.dropped ?? {}).filter(([, count]) => count);
  const others = Object.entries(metrics?.frames_by_state ?? {}).filter(([state]) => state !== "live");
  const list = (pairs) => pairs.map(([name, count]) => `${name} ${count}`).join(", ");
  setText("fps", metrics ? metrics.fps.toFixed(1) : "–");
  setText("latency", metrics?.latency_ms ? `p50 ${ms(p50)} · p95 ${ms(p95)} · p99 ${ms(p99)}` : "–");
  setText("frames", metrics ? `${metrics.frames}${others.length ? ` (${list(others)})` : ""}` : "–");
  setText("dropped", metrics ? list(dropped) || "none" : "–");
  setText("confidence", metrics?.confidence?.toFixed(2) ?? "–");
  setText("viewers", String(viewers ?? "–"));
  setText("recording", recording ?? "no");
  $("recorder").hidden = !recording;
}

// -- controls ------------------------------------------------------------------------------------

const running = () => answers && server.running;
function showControls() {
  const on = running();
  const { fixed, paused, recording } = server;
  const enable = (id, may) => ($(id).disabled = !may);
  for (const element of document.querySelectorAll(".studio")) element.hidden = fixed;
  $("newest").hidden = !fixed;
  for (const name of settings.NAMES)
    enable(name, answers && !(on && BEFORE_START.includes(name)) && !(fixed && !on));
  enable("start", answers && !on && settings.read("source") && settings.read("driving") && !acts.open);
  enable("stop", on);
  const focused = document.activeElement;
  enable("pause", on && !paused);
  enable("resume", on && paused);
  // The keyboard shall not be lost with the button that it was on.
  if (focused === $("pause") && paused) $("resume").focus();
  if (focused === $("resume") && !paused) $("pause").focus();
  enable("reference", on && server.template_landmarks === null);
  enable("newest", on);
  enable("record", on);
  enable("record-name", !recording);
  $("record").textContent = recording ? "End recording" : "Record";
  $("record").classList.toggle("on", Boolean(recording));
}

// -- pictures of the stream ----------------------------------------------------------------------

async function showPictures() {
  const { picture, alignment, template_landmarks: names } = server;
  if (!running()) {
    pictures = null;
    return;
  }
  const which = `${picture} ${alignment}`;
  if (!picture || which === pictures) return;
  pictures = which;
  try {
    const clip = names === null; // a template has no reference picture
    const [source, reference, drawn] = await Promise.all([
      getPicture("source", picture),
      clip ? getPicture("reference", picture) : null,
      // There may be none, which is no reason to go without the others.
      clip && alignment ? getPicture("alignment", picture).catch(() => null) : null,
    ]);
    if (which !== pictures) return;
    await viewer.showSource(source);
    await landmarks.takePictures({ source, reference, alignment: drawn }, names, picture);
  } catch (error) {
    pictures = null; // with the next answer
    console.warn("the pictures did not come", error);
  }
}

// -- the server ----------------------------------------------------------------------------------

async function ask() {
  const [mine, ended] = [++asked, acts.ended];
  const said = await getState().catch(() => null);
  if (mine !== asked) return; // it was asked again meanwhile
  answers = said !== null;
  server = said ?? server;
  document.documentElement.dataset.answers = answers;
  if (server) {
    // An answer from before an order would put the control back.
    const isNew = answers && !acts.open && acts.ended === ended;
    settings.showLibrary(server);
    if (isNew) settings.show(server.settings);
    showNumbers();
    viewer.watch(server.running);
    landmarks.setRunning(running());
    setText("alignment-text", server.alignment || "–");
    showControls();
    showPictures();
    if (server.problem !== problem && server.problem) say(`The stream has ended: ${server.problem}`);
    problem = server.problem;
  }
  showState();
}

async function goOn() {
  for (;;) {
    await ask();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, EVERY);
    });
  }
}

// -- what the person does ------------------------------------------------------------------------

async function doAndLook(action) {
  const doing = act(action);
  if (server) showControls();
  const worked = await doing;
  wake();
  return worked;
}

const start = () => {
  const wanted = Object.fromEntries(settings.NAMES.map((name) => [name, settings.read(name)]));
  return doAndLook(() => post("/api/start", { ...wanted, scale: Number(wanted.scale) }));
};

const record = () => {
  const now = new Date();
  const time = new Date(now - now.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
  let name = $("record-name").value.trim() || `recording-${time.replace(/\W/g, "")}`;
  if (!/\.\w+$/.test(name)) name += ".mp4";
  return doAndLook(() => post("/api/record", { file: server.recording ? null : name }));
};

const sending = new Set();

/** Orders what a control now says. While an order is on its way, only the newest value waits. */
async function change(name) {
  if (!running() || sending.has(name)) return;
  sending.add(name);
  let value;
  let worked;
  do {
    value = settings.read(name);
    worked = await doAndLook(() => order(`${name} ${value}`));
  } while (worked && settings.read(name) !== value);
  sending.delete(name);
  if (worked) settings.accept(name, value);
  else settings.restore(name);
}

/** Uploads a file and chooses it; a source moves at once if a stream runs. */
async function sendFile(kind) {
  const input = $(`upload-${kind}`);
  const progress = $(`upload-${kind}-progress`);
  const [file] = input.files;
  if (!file) return;
  input.disabled = true;
  progress.hidden = false;
  progress.value = 0;
  const worked = await act(() => upload(kind, file, (part) => (progress.value = part)));
  progress.hidden = true;
  input.disabled = false;
  input.value = ""; // the same file can be sent again
  if (!worked) return;
  await ask();
  if (running() && kind === "driving") return; // for the next start
  $(kind).value = file.name;
  await change(kind);
  showControls();
}

// -- keys ----------------------------------------------------------------------------------------

const KEYS = {
  " ": () => (server?.paused ? "resume" : "pause"),
  r: () => "reference",
  s: () => (server?.running ? "stop" : "start"),
  c: () => "record",
  f: () => "full",
  "?": () => "hotkeys-open",
};

function key(event) {
  const { target } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || $("hotkeys").open) return;
  if (event.key === "Escape") hush();
  const typing = target.matches("input[type=text], select, textarea");
  // Space presses the control that it is on.
  const presses = event.key === " " && target.matches("button, input, summary, a");
  const pressed = KEYS[event.key.toLowerCase()];
  if (typing || presses || !pressed) return;
  event.preventDefault();
  const button = $(pressed());
  if (!button.closest("[hidden]")) button.click();
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("synthesized").requestFullscreen().catch(() => say("This browser refuses full screen."));
}

// -- start ---------------------------------------------------------------------------------------

function setUp() {
  const click = (id, then) => $(id).addEventListener("click", then);
  const ordered = (text) => () => doAndLook(() => order(text));
  click("start", start);
  click("stop", () => doAndLook(() => post("/api/stop", {})));
  click("pause", ordered("pause"));
  click("resume", ordered("resume"));
  click("reference", ordered("reference"));
  click("newest", ordered("source newest"));
  click("record", record);
  click("full", toggleFull);
  click("message-close", hush);
  click("hotkeys-open", () => $("hotkeys").showModal());
  click("hotkeys-close", () => $("hotkeys").close());
  for (const name of ["source", "scale", "shading"])
    $(name).addEventListener("change", () => change(name));
  for (const kind of ["source", "driving"])
    $(`upload-${kind}`).addEventListener("change", () => sendFile(kind));
  $("scale").addEventListener("input", settings.showScale);
  // Enter in the name records; the page is never left.
  $("record-form").addEventListener("submit", (event) => {
    event.preventDefault();
    $("record").click();
  });
  document.addEventListener("keydown", key);
  document.addEventListener("fullscreenchange", () => {
    $("full").textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
  });
  landmarks.setUp();
  viewer.onFrame(showState);
  setInterval(() => {
    viewer.look();
    showState();
  }, LOOK);
  goOn();
}

setUp();
