// What the server is asked, and what is said to the person when it refuses.

const MOST = 64 * 2 ** 20; // bytes of an upload that the server takes
const PATIENCE = 3000; // milliseconds until a server that does not answer counts as gone

const $ = (id) => document.getElementById(id);

/** What the server, or this page in its place, will not do. */
class Refusal extends Error {
  constructor(text, hint = "") {
    super(text);
    this.hint = hint;
  }
}

const gone = () => new Refusal("The server does not answer.", "Does sonomime still run?");

function refusal(status, text) {
  try {
    const { error, hint } = JSON.parse(text);
    if (error) return new Refusal(error, hint);
  } catch {}
  return new Refusal(`The server answered with error ${status}.`);
}

async function ask(path, options) {
  let reply;
  try {
    reply = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw gone();
  }
  if (!reply.ok) throw refusal(reply.status, await reply.text());
  return reply;
}

export async function getState() {
  const reply = await ask("/api/state", { signal: AbortSignal.timeout(PATIENCE) });
  return reply.json();
}

/** Asks for something to be done; whatever is answered but "ok" is a refusal; "pending": it will
 * be done later. */
export async function post(path, body) {
  const headers = { "X-Sonomime": "1", "Content-Type": "application/json" };
  const reply = await ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  const { answer } = await reply.json();
  if (!["ok", "pending", undefined].includes(answer)) throw new Refusal(answer);
}

export const order = (text) => post("/api/order", { order: text });

/** A picture of the running stream as a Blob. */
export async function getPicture(name, number) {
  const reply = await ask(`/picture/${name}.png?n=${number}`);
  return reply.blob();
}

/** Sends a file; `progressed` gets the part that has gone, from 0 to 1. */
export function upload(kind, file, progressed) {
  return new Promise((resolve, reject) => {
    if (file.size > MOST) {
      reject(new Refusal(`${file.name} is too large.`, "A file can have 64 MB at most."));
      return;
    }
    // fetch cannot tell how far an upload is.
    const request = new XMLHttpRequest();
    request.open("POST", `/api/upload?kind=${kind}&name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-Sonomime", "1");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progressed(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status < 400) resolve();
      else reject(refusal(request.status, request.responseText));
    });
    request.addEventListener("error", () => reject(gone()));
    request.send(file);
  });
}

// -- what the person does, one act at a time or several ------------------------------------------

/** Acts that go on, and how many have ended: what the server said meanwhile may be out of date. */
export const acts = { open: 0, ended: 0 };

/** Does what the person asked for. Whether it worked; if not, a message says why. */
export async function act(action) {
  hush();
  acts.open += 1;
  $("busy").textContent = "Working…";
  try {
    await action();
    return true;
  } catch (error) {
    say(error.message, error.hint);
    if (!(error instanceof Refusal)) throw error; // a defect of this page, for its console
    return false;
  } finally {
    acts.open -= 1;
    acts.ended += 1;
    if (!acts.open) $("busy").textContent = "";
  }
}

export function say(text, hint = "") {
  $("message-text").textContent = text;
  $("message-hint").textContent = hint;
  $("message").hidden = false;
  $("message").showPopover();
}

export function hush() {
  if ($("message").hidden) return;
  $("message").hidePopover();
  $("message").hidden = true;
}
