// Places that the person marks on source and reference, to align the two by hand.
// Without a template they come in pairs, numbered in the order of clicking. A template has no
// reference picture but knows its places by name, so they are marked on the source alone.

import { act, post } from "./api.js";

const $ = (id) => document.getElementById(id);
const IMAGES = ["source", "reference"];
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FAR = 10; // pixels of a step with Shift

let running = false;
let names = null; // of a template's places; null: pairs
let marks = []; // {name, source: [x, y], reference: [x, y]}, in pixels; a new list for each change
let before = []; // what `marks` was before each click
let blobs = {}; // the pictures, by name
let number = 0; // of these pictures: the server refuses landmarks of others
const crosses = {}; // where the keyboard's cross is, by picture

// -- pictures ------------------------------------------------------------------------------------

/** Takes the pictures, as Blobs or null, and their number. Marks that were made on others go. */
export async function takePictures(pictures, given, which) {
  const same = await Promise.all(IMAGES.map((image) => isSame(blobs[image], pictures[image])));
  if (same.includes(false) || String(given) !== String(names)) setNames(given);
  blobs = pictures;
  number = which;
  IMAGES.forEach((image, index) => {
    if (!same[index]) showBlob($(`landmark-${image}`), pictures[image]);
  });
  showBlob($("alignment"), pictures.alignment);
  show();
}

async function isSame(one, other) {
  if (!one || !other || one.size !== other.size) return one === other;
  const [a, b] = await Promise.all([one, other].map((blob) => blob.arrayBuffer()));
  const bytes = new Uint8Array(b);
  return new Uint8Array(a).every((value, index) => value === bytes[index]);
}

function showBlob(element, blob) {
  if (element.src) URL.revokeObjectURL(element.src);
  element.hidden = !blob;
  if (blob) element.src = URL.createObjectURL(blob);
  else element.removeAttribute("src");
}

function setNames(given) {
  names = given;
  marks = before = [];
  $("landmark-name").replaceChildren(...(names ?? []).map((name) => new Option(name)));
  $("landmark-name-row").hidden = !names?.length;
  $("landmark-reference-figure").hidden = names !== null;
}

export function setRunning(on) {
  if (on === running) return;
  running = on;
  show();
}

// -- marks ---------------------------------------------------------------------------------------

const isWhole = (mark) => Boolean(mark.source && (names || mark.reference));

/** A second click on the same picture moves the mark that still lacks its other half. */
function place(image, pixel) {
  before = [...before, marks];
  if (names) {
    const name = $("landmark-name").value;
    marks = [...marks.filter((mark) => mark.name !== name), { name, source: pixel }];
    const missing = names.find((each) => !marks.some((mark) => mark.name === each));
    if (missing !== undefined) $("landmark-name").value = missing;
  } else {
    const last = marks.at(-1);
    if (last && !isWhole(last)) marks = [...marks.slice(0, -1), { ...last, [image]: pixel }];
    else marks = [...marks, { name: String(marks.length + 1), [image]: pixel }];
  }
  show();
}

function undo() {
  marks = before.at(-1);
  before = before.slice(0, -1);
  show();
}

function empty() {
  before = [...before, marks];
  marks = [];
  show();
}

const placesOn = (image) =>
  Object.fromEntries(marks.filter((mark) => mark[image]).map((mark) => [mark.name, mark[image]]));

const use = () =>
  act(() => {
    const places = { source: placesOn("source"), reference: placesOn("reference") };
    return post("/api/landmarks", { ...places, picture: number });
  });

const useNone = () => act(() => post("/api/landmarks", { source: {}, reference: {} }));

// -- what is shown -------------------------------------------------------------------------------

function show() {
  $("landmark-step").textContent = step();
  $("landmarks-undo").disabled = !before.length;
  $("landmarks-clear").disabled = !marks.length;
  $("landmarks-use").disabled = !running || !marks.length || !marks.every(isWhole);
  $("landmarks-auto").disabled = !running;
  for (const image of IMAGES) showMarks($(`landmark-${image}`), image);
}

/** What to do next. */
function step() {
  if (!running) return "Landmarks can be set while a stream runs.";
  if (!blobs.source) return "The pictures are on their way.";
  if (names) return stepByName();
  const last = marks.at(-1);
  if (!last) return "Click a place on the source, then the same place on the reference.";
  if (!isWhole(last)) return `Click place ${last.name} on the ${last.source ? "reference" : "source"}.`;
  const said = marks.length === 1 ? "1 place is marked." : `${marks.length} places are marked.`;
  return `${said} Mark another, or press “Use these landmarks”.`;
}

function stepByName() {
  if (!names.length) return "This motion template has no named places, so nothing can be aligned by hand.";
  if (marks.length < names.length) return `Click the place “${$("landmark-name").value}” on the source.`;
  return "All places are marked. Press “Use these landmarks”, or choose one and click again to move it.";
}

function showMarks(element, image) {
  for (const old of element.parentElement.querySelectorAll(".mark")) old.remove();
  for (const mark of marks.filter((each) => each[image])) {
    const dot = document.createElement("span");
    dot.className = "mark";
    dot.textContent = mark.name;
    // A long name would not have room on the right.
    dot.classList.toggle("left", mark[image][0] > element.naturalWidth * 0.7);
    moveTo(dot, element, mark[image]);
    element.after(dot);
  }
}

/** (0, 0) is the centre of the first pixel, as everywhere in sonomime. */
function moveTo(dot, element, [x, y]) {
  dot.style.left = `${(100 * (x + 0.5)) / element.naturalWidth}%`;
  dot.style.top = `${(100 * (y + 0.5)) / element.naturalHeight}%`;
}

function clip(element, x, y) {
  const within = (value, size) => Math.round(10 * Math.min(Math.max(value, 0), size - 1)) / 10;
  return [within(x, element.naturalWidth), within(y, element.naturalHeight)];
}

function clicked(element, event) {
  const x = (event.offsetX / element.clientWidth) * element.naturalWidth - 0.5;
  const y = (event.offsetY / element.clientHeight) * element.naturalHeight - 0.5;
  return clip(element, x, y);
}

// -- by keyboard ---------------------------------------------------------------------------------

function showCross(element, image, pixel) {
  crosses[image].position = pixel;
  crosses[image].dot.hidden = false;
  moveTo(crosses[image].dot, element, pixel);
}

function key(element, image, event) {
  const [x, y] = crosses[image].position;
  const size = event.shiftKey ? FAR : 1;
  if (event.key in STEPS) {
    const [right, down] = STEPS[event.key];
    showCross(element, image, clip(element, x + size * right, y + size * down));
  } else if (event.key === "Enter") mark(image, [x, y]);
  else return;
  event.preventDefault();
}

function mark(image, pixel) {
  if (running && (!names || names.length)) place(image, pixel);
}

function connect(image) {
  const element = $(`landmark-${image}`);
  const dot = document.createElement("span");
  dot.className = "cross";
  dot.hidden = true;
  element.after(dot);
  crosses[image] = { dot, position: [0, 0] };
  const middle = () => clip(element, element.naturalWidth / 2, element.naturalHeight / 2);
  element.addEventListener("load", () => {
    crosses[image].position = middle();
    showMarks(element, image); // their places depend on its size
  });
  element.addEventListener("click", (event) => mark(image, clicked(element, event)));
  element.addEventListener("keydown", (event) => key(element, image, event));
  element.addEventListener("blur", () => (dot.hidden = true));
}

export function setUp() {
  IMAGES.forEach(connect);
  $("landmark-name").addEventListener("change", show);
  $("landmarks-undo").addEventListener("click", undo);
  $("landmarks-clear").addEventListener("click", empty);
  $("landmarks-use").addEventListener("click", use);
  $("landmarks-auto").addEventListener("click", useNone);
  show();
}
