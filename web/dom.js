// What the widgets share in making elements; importing it brings their style.
import { api } from "../../scripts/api.js";

/** An element with properties and children. Text goes through textContent or a string child, so it is never markup. */
export function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const many = (number, word) => `${number} ${word}${String(number) === "1" ? "" : "s"}`;

/** Where ComfyUI serves a picture of one of its folders. */
export const pictureURL = ({ filename, subfolder, type }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

document.head.append(el("link", { rel: "stylesheet", href: new URL("pairlora.css", import.meta.url).href }));
