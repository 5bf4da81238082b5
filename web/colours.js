// The colours of the pack's own kinds of links: on the canvas here, on Nodes 2.0 by pairlora.css.
import { app } from "../../scripts/app.js";

const COLOURS = { PAIRLORA_DATASET: "#4dd0e1", PAIRLORA_SETTINGS: "#d7b48c" };

app.registerExtension({
  name: "pairlora.colours",
  setup() {
    for (const colours of [LGraphCanvas.link_type_colors, app.canvas.default_connection_color_byType])
      for (const [type, colour] of Object.entries(COLOURS)) // kept, for a palette sets those that it does not know to ""
        Object.defineProperty(colours, type, { get: () => colour, set() {}, enumerable: true, configurable: true });
  },
});
