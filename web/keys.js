// Which run a Train node shows, by the run's key. A workflow names it in a property, but ComfyUI keeps a workflow only once its
// user changes something, and to tell it of a change would queue again in its "on change" mode. So the page remembers too: over
// a reload, a crash and an undo.
export const KEY = "pairlora_run";

const STORE = "pairlora.runs", NODES = 200, EACH = 10; // runs of a node

const place = (node) => `${node.graph?.id}/${node.id}`;

function read() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}

/** The keys of the runs that a node has shown here, the last one last. */
export const shownBy = (node) => read()[place(node)] ?? [];

export function remember(node, key) {
  const { [place(node)]: before = [], ...others } = read();
  const keys = [...before.filter((other) => other !== key), key].slice(-EACH);
  write([...Object.entries(others).slice(1 - NODES), [place(node), keys]]);
}

/** Of a node that is new, though another one may have had its number. */
export function forget(node) {
  const { [place(node)]: before, ...others } = read();
  if (before) write(Object.entries(others));
}

function write(entries) {
  try {
    localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(entries)));
  } catch {} // full: the workflow names it once it is saved
}

/** What a node that has been loaded shows: its last run here, unless the workflow names one that is unknown here. */
export function lastOf(node) {
  const keys = shownBy(node), named = node.properties[KEY];
  return named && !keys.includes(named) ? named : keys.at(-1);
}
