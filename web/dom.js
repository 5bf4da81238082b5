// What the widgets share: elements, pictures, requests and panels; importing it brings their style.
import { api } from "../../scripts/api.js";

/** An element with properties and children. Text goes through textContent or a string child, so it is never markup. */
export function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Where ComfyUI serves a picture of one of its folders. */
export const pictureURL = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/** Ask something of the pack, with a body for JSON; the Response. */
export const post = (route, body) => api.fetchApi(`/pairlora/${route}`, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
});

/** Let `then` be called with the same arguments after a method of `target`, such as a callback of a node, which may have none. */
export function after(target, name, then) {
  const before = target[name];
  target[name] = (...args) => {
    const result = before?.apply(target, args);
    then(...args);
    return result;
  };
}

const DRAWN = 100; // ms after which nodes are drawn
let removed = []; // panels of nodes that are in no graph any more, as {id, name, element}

/** Put a panel on a node, under the name of a widget that is saved nowhere; `height` is the least, `most` the greatest, in px. */
export function addPanel(node, name, element, height, most) {
  // the canvas would take the wheel for zooming
  element.addEventListener("wheel", (event) => event.stopPropagation(), { passive: true });
  const widget = node.addDOMWidget(name, `pairlora-${name}`, element, {
    serialize: false, hideOnZoom: false, getMinHeight: () => height, ...(most && { getMaxHeight: () => most }),
  });
  widget.serialize = false; // nor in saved workflows, whose values go by position
  // An undo makes all nodes anew. Nodes 2.0 goes on with what it has drawn for a node of the same number, and its WidgetDOM
  // takes a widget's element only when it is drawn first.
  after(node, "onRemoved", () => {
    removed = [...removed.filter((panel) => panel.element.isConnected), { id: node.id, name, element }];
  });
  const replace = () => setTimeout(() => {
    const before = removed.find((panel) => panel.id === node.id && panel.name === name && panel.element.isConnected);
    if (before && !element.isConnected) before.element.replaceWith(element);
  }, DRAWN);
  for (const event of ["onConfigure", "onAdded"]) after(node, event, replace); // a prompt in the API format configures none
}

document.head.append(el("link", { rel: "stylesheet", href: new URL("pairlora.css", import.meta.url).href }));
