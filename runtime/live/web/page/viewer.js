// The pictures: frames from the socket, drawn as they come. Each is asked for after the one before
// was drawn, so a slow page gets fewer frames, never old ones.

const SILENT = 5000; // milliseconds without a frame after which another connection is tried
const PAUSES = [250, 500, 1000, 2000, 5000]; // milliseconds before each new try

const $ = (id) => document.getElementById(id);

let wanted = false; // whether a stream runs
let socket = null;
let heard = 0; // when something came last, or the connection was begun
let tries = 0;
let timer = null;
let frame = null; // what was drawn last of this stream
let made = 0; // when that was made, by the server's clock
let drawn = () => {};

/** What the message of the frame that was drawn last said, and its age in milliseconds; null before
 * any. */
export function newest() {
  return frame && { ...frame, age: performance.now() - frame.at };
}

/** `then` is called after each frame. */
export function onFrame(then) {
  drawn = then;
}

/** Watches the stream, or no longer. The last frame of one that has ended stays, for `cover`. */
export function watch(on) {
  if (on === wanted) return;
  wanted = on;
  clearTimeout(timer);
  if (on) {
    frame = null;
    tries = 0;
    for (const name of ["source", "driving", "synthesized"]) clear($(`canvas-${name}`));
    connect();
  } else {
    socket?.close();
    socket = null;
  }
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const one = new WebSocket(`${scheme}://${location.host}/ws?driving=1`);
  one.binaryType = "arraybuffer";
  one.addEventListener("message", (event) => take(one, event.data));
  one.addEventListener("close", () => one === socket && reconnect());
  socket = one;
  heard = performance.now();
}

function reconnect() {
  socket = null;
  timer = setTimeout(connect, PAUSES[Math.min(tries, PAUSES.length - 1)]);
  tries += 1;
}

/** A connection can be dead without a word of it; calling this now and then finds out. */
export function look() {
  if (!socket || performance.now() - heard < SILENT) return;
  const old = socket;
  reconnect();
  old.close();
}

async function take(one, data) {
  heard = performance.now();
  try {
    const { facts, synthesized, driving } = await decode(data);
    if (one !== socket) return;
    // To a new connection the server sends its newest frame, which may be an old one.
    if (facts.made_at !== made) show(facts, synthesized, driving);
  } catch (error) {
    // What is shown grows old, and is then covered; the next frame may be whole.
    console.warn("a frame could not be shown", error);
  }
  if (one.readyState === WebSocket.OPEN) one.send("n");
}

function show(facts, synthesized, driving) {
  draw($("canvas-synthesized"), synthesized);
  if (driving) draw($("canvas-driving"), driving);
  else clear($("canvas-driving"));
  $("no-driving").hidden = driving !== null;
  frame = { ...facts, at: performance.now() };
  made = facts.made_at;
  tries = 0;
  drawn();
}

/** A message: length of the JSON, 4 bytes, little-endian; the JSON; the two JPEGs whose lengths the
 * JSON names. */
async function decode(data) {
  const length = new DataView(data).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const [size, more] = facts.parts;
  const bitmap = (at, size) => createImageBitmap(new Blob([new Uint8Array(data, at, size)]));
  const [synthesized, driving] = await Promise.all([
    bitmap(4 + length, size),
    more ? bitmap(4 + length + size, more) : null,
  ]);
  return { facts, synthesized, driving };
}

function draw(canvas, bitmap) {
  // Setting the size empties a canvas, so it is set only where it is another.
  if (canvas.width !== bitmap.width) canvas.width = bitmap.width;
  if (canvas.height !== bitmap.height) canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Draws the source, given as a Blob. */
export async function showSource(blob) {
  const bitmap = await createImageBitmap(blob);
  clear($("canvas-source")); // a picture that is transparent would show the one before
  draw($("canvas-source"), bitmap);
}

/** Covers the moving pictures with a word; "" uncovers them. */
export function cover(text) {
  for (const name of ["driving", "synthesized"]) {
    const overlay = $(`overlay-${name}`);
    overlay.textContent = text;
    overlay.hidden = !text;
  }
}
