// The settings of a stream: their controls, and how these follow the server.

const $ = (id) => document.getElementById(id);

// By name, which is the control's id too: where the control has its value.
const SETTINGS = {
  source: "value", driving: "value", loop: "checked", motion: "value", scale: "value",
  smooth: "checked", shading: "value", size: "value",
};
export const NAMES = Object.keys(SETTINGS);

const reported = {}; // as the server said them last
const valid = {}; // as they are, which includes orders that it does not report

export const read = (name) => $(name)[SETTINGS[name]];

function write(name, value) {
  $(name)[SETTINGS[name]] = value;
  if (name === "scale") $("scale-value").textContent = Number(value).toFixed(1);
}

/** The number beside the slider, while it is moved. */
export const showScale = () => write("scale", read("scale"));

/** A control follows the server when the server says something new. What the person has chosen for
 * the next start stays otherwise. */
export function show(settings) {
  for (const name of NAMES) {
    const value = settings?.[name];
    if (value === reported[name]) continue;
    reported[name] = value;
    if (value !== undefined) {
      accept(name, value);
      write(name, value);
    }
  }
}

/** The server has taken it. */
export function accept(name, value) {
  valid[name] = value;
}

/** The server has refused what the control says. */
export function restore(name) {
  if (name in valid) write(name, valid[name]);
}

/** Fills the lists of sources and of what can drive, from the server's state. */
export function showLibrary({ library, settings, fixed }) {
  const { sources, driving, templates, motions } = library;
  // The name first: a closed list cuts off what is long.
  const title = ({ name, title, seconds }) => [name, `${name}, ${seconds} s: ${title}`];
  const named = (name) => [name, name];
  fill("source", [["", sources.map(named)]], settings?.source);
  const clips = ["Clips", driving.map(named)];
  fill("driving", [clips, ["Motion templates", templates.map(title)]], settings?.driving);
  if (motions.length && !motions.includes(read("motion"))) write("motion", motions[0]);
  $("motion-row").hidden = fixed || motions.length < 2; // a choice of one is none
  $("source-row").hidden = fixed && !sources.length;
}

/** Fills a list if it has changed: an open one would close. `now`, what is used, is in it also
 * where the library no longer has it. */
function fill(id, groups, now) {
  const select = $(id);
  const known = groups.flatMap(([, rows]) => rows.map(([value]) => value));
  const gone = now && !known.includes(now) ? [now] : [];
  const key = JSON.stringify([groups, gone]);
  if (select.dataset.filled === key) return;
  select.dataset.filled = key;
  const { value } = select;
  const children = groups.flatMap(([label, rows]) => {
    const options = rows.map(([value, text]) => new Option(text, value));
    if (!label || !options.length) return options;
    const group = document.createElement("optgroup");
    group.label = label;
    group.append(...options);
    return [group];
  });
  for (const name of gone) {
    const option = new Option(name, name);
    option.disabled = true;
    children.push(option);
  }
  select.replaceChildren(...children);
  if ([...known, ...gone].includes(value)) select.value = value;
}
