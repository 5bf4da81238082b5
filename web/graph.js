// Which node of which workflow the server means, and new entries for all dropdowns. ComfyUI tells a node's number only,
// and every open workflow has a node of that number.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

export const NO_ID = "00000000-0000-0000-0000-000000000000"; // of a workflow that has none

const onScreen = () => app.extensionManager.workflow.activeWorkflow;
const queued = new Map(); // prompt id -> {workflow, id: of the workflow, nodes: of the prompt}
let queueing; // the request under way: its prompt may run before it is answered

const { queuePrompt } = api;
api.queuePrompt = function (...args) {
  const entry = { workflow: onScreen(), id: args[1]?.workflow?.id, nodes: args[1]?.output };
  const answer = queuePrompt.apply(this, args);
  queueing = answer.then(({ prompt_id }) => queued.set(prompt_id, entry), () => {}); // whoever queues handles errors
  return answer;
};

/** Whether the workflow on screen queued a prompt; of one queued before this page was loaded, only the id is known. */
export async function isOnScreen(prompt, workflowId) {
  await queueing;
  const { workflow, id } = queued.get(prompt) ?? { workflow: onScreen(), id: workflowId };
  return workflow === onScreen() && id === app.graph.id;
}

/** The inputs that a node was queued with, where this page queued it. */
export function inputsOf(prompt, nodeId) {
  return queued.get(prompt)?.nodes?.[nodeId]?.inputs;
}

/** The node that the server calls `nodeId`, such as "4", or "7:4" in the subgraph of node 7; the page's outputs have the
    subgraph's id in place of the 7. */
export function nodeAt(nodeId) {
  const path = String(nodeId).split(":");
  const inner = (outer, id) => app.graph.subgraphs?.get(id) ?? outer?.getNodeById(id)?.subgraph;
  return path.slice(0, -1).reduce(inner, app.graph)?.getNodeById(path.at(-1));
}

const allGraphs = () => [app.graph, ...(app.graph.subgraphs?.values() ?? [])];

/** What the server calls a node; in a subgraph that is used several times, the first. */
export function idOf({ graph, id }) {
  const outer = allGraphs().flatMap(({ nodes }) => nodes).find(({ subgraph }) => subgraph && subgraph === graph);
  return outer ? `${idOf(outer)}:${id}` : String(id);
}

/** Whether a widget takes its value from a link. */
export function isLinked(node, name) {
  return Boolean(node.inputs?.some((input) => input.widget?.name === name && input.link != null));
}

// Nodes that put a LoRA on a model, and what their widgets for its file and its strength are called.
const LOADERS = { PairLoRALoad: ["lora", "strength"], LoraLoaderModelOnly: ["lora_name", "strength_model"], LoraLoader: ["lora_name", "strength_model"] };

/** Let the nodes of the workflow that load the LoRA `name`, or a step of it, load `file` at a strength; these nodes. */
export function useLora(name, file, strength) {
  return allGraphs().flatMap(({ nodes }) => nodes).filter((node) => {
    const [lora, force] = (LOADERS[node.comfyClass] ?? []).map((wanted) => node.widgets.find((widget) => widget.name === wanted));
    const bare = String(lora?.value).replaceAll("\\", "/").replace(/\.safetensors$/, "");
    if (!lora || isLinked(node, lora.name) || isLinked(node, force.name)) return false;
    if (bare !== name && !(bare.startsWith(`${name}_step`) && /^\d+(_\d+)?$/.test(bare.slice(`${name}_step`.length)))) return false;
    const known = [lora.options?.values].flat().find((value) => String(value).replaceAll("\\", "/") === file); // in a dropdown of Windows
    for (const [widget, value] of [[lora, known ?? file], [force, strength]]) {
      widget.value = value;
      widget.callback?.(value);
    }
    node.setDirtyCanvas(true, true);
    return true;
  });
}

/** Have ComfyUI note what has changed, as one step that can be undone. */
export function noteChange() {
  onScreen()?.changeTracker?.checkState?.();
}

/** Let the dropdowns of all graphs, subgraphs and workflows opened later know new folders and files, as R does. */
export async function refreshDropdowns() {
  try {
    await (app.reloadNodeDefs ?? app.refreshComboInNodes).call(app);
  } catch (error) {
    console.warn("PairLoRA: the dropdowns could not be refreshed; press R.", error);
  }
}

app.registerExtension({
  name: "pairlora.graph",
  // examples come without an id of their own; newer ComfyUI gives each one, as 0.3.75 does only where it is missing
  beforeConfigureGraph(workflow) {
    if (workflow.id === NO_ID) delete workflow.id;
  },
});
