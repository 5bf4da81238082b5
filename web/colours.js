// The colours of the pack's own kinds of links: on the canvas here, on Nodes 2.0 by pairlora.css.
import { app } from "../../scripts/app.js";

const COLOURS = { PAIRLORA_DATASET: "#4dd0e1", PAIRLORA_SETTINGS: "#d7b48c" };

app.registerExtension({
  name: "pairlora.colours",
  setup() {
    Object.assign(LGraphCanvas.link_type_colors, COLOURS);
    Object.assign(app.canvas.default_connection_color_byType, COLOURS);
  },
});
