"""Both of ComfyUI's formats of a workflow from one description of its nodes: the editor's, with places, groups, notes and
subgraphs, and the API's."""
import json
import uuid
from dataclasses import dataclass, field, replace

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
SEEDS = {"seed", "noise_seed"}  # the page adds what becomes of them after a run, where a node does not say otherwise
TITLE, SLOT, WIDGET, TEXT = 30, 20, 27, 110  # heights in pixels of a node's parts; TEXT is a field of many lines
GAP = 44  # between columns
LANE = 16  # between links that pass over columns
NOTE = 940  # width of a workflow's note
ZOOM, MARGIN = 0.8, (90, 200)  # at which a workflow opens, and where its note is then: right of and below the page's bars
OPTIONAL, LIST = 7, 6  # shapes of slots
FAR = 200  # below the top of the columns
FROM_OUTSIDE, TO_OUTSIDE = -10, -20  # what a subgraph's links start and end at


class UnknownNode(LookupError):
    """This ComfyUI has no node of that type."""


@dataclass(frozen=True)
class Definition:
    """What a node has: sockets and outputs with their types, widgets with their defaults, each in order."""

    sockets: dict[str, tuple[str, bool]] = field(default_factory=dict)  # type, and whether it is optional
    widgets: dict[str, tuple[str, object]] = field(default_factory=dict)  # type and default
    controlled: frozenset[str] = frozenset()  # widgets that another follows, which says what a run makes of their value
    long: int = 0  # widgets of many lines
    optional: frozenset[str] = frozenset()
    outputs: tuple[tuple[str, str, bool], ...] = ()  # name, type, and whether it is a list

    @classmethod
    def of(cls, known: dict) -> "Definition":
        """From an entry of ComfyUI's /object_info."""
        sockets, widgets, controlled, long = {}, {}, set(), 0
        optional = known["input"].get("optional", {})
        for name, (kind, *options) in {**known["input"].get("required", {}), **optional}.items():
            options = options[0] if options else {}
            kind = "COMBO" if isinstance(kind, list) else kind
            if kind not in WIDGETS or options.get("forceInput"):
                sockets[name] = kind, name in optional
                continue
            widgets[name] = kind, options.get("default")
            long += bool(options.get("multiline"))
            if options.get("control_after_generate", name in SEEDS):
                controlled.add(name)
        outputs = zip(known["output_name"], known["output"], known["output_is_list"])
        return cls(sockets, widgets, frozenset(controlled), long, frozenset(optional), tuple(outputs))


@dataclass(frozen=True)
class Output:
    """An output of a node or, without one, what a subgraph is given; inputs take it as a value."""

    node: "Node | None"
    slot: int
    type: str


@dataclass(eq=False)
class Node:
    type: str
    definition: Definition
    values: dict  # by name of the input: an Output or a widget's value
    id: int
    title: str | None = None
    models: tuple[tuple[str, str, str], ...] = ()  # name, directory and address of the files that it loads
    inside: "Graph | None" = None  # of a subgraph's node
    height: int = 0
    width: int = 0
    at: tuple[int, int] = (0, 0)

    def __getitem__(self, name: str) -> Output:
        names = [output[0].lower() for output in self.definition.outputs]
        slot = names.index(name.lower())
        return Output(self, slot, self.definition.outputs[slot][1])

    def inputs(self) -> list[tuple[str, str, bool]]:
        """Name, type and whether it is a widget of each, in the editor's order."""
        sockets = [(name, kind, False) for name, (kind, _) in self.definition.sockets.items()]
        return sockets + [(name, kind, True) for name, (kind, _) in self.definition.widgets.items()]

    def links(self) -> list[tuple[Output, int]]:
        """Where its inputs come from, and their places."""
        found = ((self.values.get(name), i) for i, (name, _, _) in enumerate(self.inputs()))
        return [(value, i) for value, i in found if isinstance(value, Output)]

    def widget(self, name: str):
        value = self.values.get(name)
        return self.definition.widgets[name][1] if value is None or isinstance(value, Output) else value

    def needed_height(self) -> int:
        slots = max(len(self.definition.sockets), len(self.definition.outputs))
        widgets = len(self.definition.widgets) + len(self.definition.controlled)
        return slots * SLOT + widgets * WIDGET + self.definition.long * TEXT + 16


class Graph:
    """Nodes with their links, of a workflow or of a subgraph that has a ``name``, is given ``given`` and gives what
    ``gives`` is set to. Nodes are numbered from ``first``: newer pages renumber a subgraph's where a number is there twice."""

    def __init__(self, known: dict, name: str = "", first: int = 1, **given: str):
        self.known, self.name, self.first, self.nodes = known, name, first, []
        self.given = given
        self.gives: dict[str, Output] = {}
        self.shown: list[tuple[Node, str]] = []  # widgets that the subgraph's node shows

    def node(self, type: str, title: str | None = None, /, models=(), id=None, tall=0, **values) -> Node:
        if type not in self.known:
            raise UnknownNode(type)
        definition = Definition.of(self.known[type])
        if unknown := values.keys() - definition.sockets.keys() - definition.widgets.keys():
            raise ValueError(f"{type} has no input {', '.join(sorted(unknown))}")
        return self._add(Node(type, definition, values, id or self._next_id(), title, tuple(models), None, tall))

    def subgraph(self, inside: "Graph", **values: Output) -> Node:
        outputs = tuple((name, output.type, self._is_list(output)) for name, output in inside.gives.items())
        definition = Definition({name: (kind, False) for name, kind in inside.given.items()}, outputs=outputs)
        return self._add(Node(inside.id(), definition, values, self._next_id(), inside.name, (), inside))

    def input(self, name: str) -> Output:
        return Output(None, list(self.given).index(name), self.given[name])

    def id(self) -> str:
        """Of a subgraph, by what is in it: pasted into another workflow it must not be taken for one of that."""
        content = self.name, self.api(outer=lambda name: [name, 0]), list(self.given), list(self.gives)
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content)))

    def _add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def _next_id(self) -> int:
        return max((node.id for node in self.nodes), default=self.first - 1) + 1

    @staticmethod
    def _is_list(output: Output) -> bool:
        return output.node is not None and output.node.definition.outputs[output.slot][2]

    def links(self) -> list[tuple[int, Output, Node, int]]:
        """Number, origin, target and the target's input of each link."""
        found = [(output, node, place) for node in self.nodes for output, place in node.links()]
        return [(number, *link) for number, link in enumerate(found, 1)]

    def api(self, prefix: str = "", outer=None) -> dict:
        """The prompt that the page makes of it: subgraphs are resolved, their nodes are called by both numbers."""

        def source(output: Output) -> list:
            if output.node is None:
                return outer(list(self.given)[output.slot])
            if output.node.inside is None:
                return [f"{prefix}{output.node.id}", output.slot]
            inside = output.node.inside
            inner = list(inside.gives.values())[output.slot]
            return [f"{prefix}{output.node.id}:{inner.node.id}", inner.slot]

        prompt = {}
        for node in self.nodes:
            if node.inside is not None:
                prompt |= node.inside.api(f"{prefix}{node.id}:", lambda name, node=node: source(node.values[name]))
                continue
            inputs = {name: node.widget(name) for name in node.definition.widgets}
            inputs |= {name: source(value) for name, value in node.values.items() if isinstance(value, Output)}
            prompt[f"{prefix}{node.id}"] = {"class_type": node.type, "inputs": inputs}
        return prompt

    def spread(self) -> None:
        """Place the nodes of a subgraph from left to right, each behind what it gets."""
        depth: dict[Node, int] = {}
        for node in self.nodes:  # in the order of their making, so what they get is known
            depth[node] = 1 + max((depth[o.node] for o, _ in node.links() if o.node is not None), default=-1)
        heights: dict[int, int] = {}
        for node in self.nodes:
            node.width, node.height = 260, node.height or node.needed_height()
            node.at = depth[node] * (260 + GAP), heights.get(depth[node], 0)
            heights[depth[node]] = node.at[1] + node.height + TITLE + 40

    def saved_nodes(self) -> list[dict]:
        links = self.links()
        arriving = {(node, place): number for number, _, node, place in links}
        return [self._saved(node, order, links, arriving) for order, node in enumerate(self.nodes)]

    @staticmethod
    def _saved(node: Node, order: int, links: list, arriving: dict) -> dict:
        inputs = []
        for place, (name, kind, is_widget) in enumerate(node.inputs()):
            saved = {"name": name, "type": kind, "link": arriving.get((node, place))}
            if name in node.definition.optional:
                saved["shape"] = OPTIONAL
            if is_widget:
                saved["widget"] = {"name": name}
            inputs.append(saved)
        outputs = []
        for slot, (name, kind, is_list) in enumerate(node.definition.outputs):
            leaving = [number for number, output, _, _ in links if output.node is node and output.slot == slot]
            outputs.append({"name": name, "type": kind, "links": leaving} | ({"shape": LIST} if is_list else {}))
        saved = {
            "id": node.id, "type": node.type, "pos": list(node.at), "size": [node.width, node.height], "flags": {},
            "order": order, "mode": 0, "inputs": inputs, "outputs": outputs, "properties": {},
        }  # fmt: skip
        if node.title:
            saved["title"] = node.title
        if node.inside is not None:
            saved["properties"] = {"proxyWidgets": [[str(inner.id), name] for inner, name in node.inside.shown]}
            saved["widgets_values"] = []
            return saved
        pack = "pairlora" if node.type.startswith("PairLoRA") else "comfy-core"
        saved["properties"] = {"Node name for S&R": node.type, "cnr_id": pack}  # the Manager offers to install that pack
        if node.models:
            models = [{"name": name, "url": address, "directory": place} for name, place, address in node.models]
            saved["properties"]["models"] = models
        values = []
        for name in node.definition.widgets:
            values += [node.widget(name)] + (["fixed"] if name in node.definition.controlled else [])
        saved["widgets_values"] = values
        return saved

    def saved_subgraph(self) -> dict:
        """Its definition, as a workflow holds it."""
        self.spread()
        links = [
            {"id": number, "origin_id": o.node.id if o.node else FROM_OUTSIDE, "origin_slot": o.slot,
             "target_id": node.id, "target_slot": place, "type": o.type}
            for number, o, node, place in self.links()
        ]  # fmt: skip
        right = max(node.at[0] + node.width for node in self.nodes) + 2 * GAP
        nodes = self.saved_nodes()
        outputs = []
        for slot, (name, o) in enumerate(self.gives.items()):
            number = len(links) + 1
            links.append({"id": number, "origin_id": o.node.id, "origin_slot": o.slot, "target_id": TO_OUTSIDE,
                          "target_slot": slot, "type": o.type})  # fmt: skip
            of_node = next(saved for saved in nodes if saved["id"] == o.node.id)
            of_node["outputs"][o.slot]["links"].append(number)
            outputs.append({"id": self._slot_id(name, "out"), "name": name, "type": o.type, "linkIds": [number]})
        inputs = [
            {"id": self._slot_id(name, "in"), "name": name, "type": kind,
             "linkIds": [link["id"] for link in links if (link["origin_id"], link["origin_slot"]) == (FROM_OUTSIDE, slot)]}
            for slot, (name, kind) in enumerate(self.given.items())
        ]  # fmt: skip
        return {
            "id": self.id(), "version": 1, "revision": 0, "name": self.name, "config": {},
            "state": {"lastGroupId": 0, "lastNodeId": max(n.id for n in self.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
            "inputNode": {"id": FROM_OUTSIDE, "bounding": [-260, 0, 160, 40 + SLOT * len(inputs)]},
            "outputNode": {"id": TO_OUTSIDE, "bounding": [right, 0, 120, 40 + SLOT * len(outputs)]},
            "inputs": inputs, "outputs": outputs, "widgets": [], "nodes": nodes, "groups": [], "links": links, "extra": {},
        }  # fmt: skip

    def _slot_id(self, name: str, side: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"pairlora {self.name} {side} {name}"))


def blueprint(node: Node) -> dict:
    """What ComfyUI wants of a subgraph that is offered among the nodes: a workflow with that alone."""
    node.width, node.height, node.at = node.width or 230, node.height or node.needed_height(), (0, 0)
    alone = Graph({})
    alone.nodes = [replace(node, values={}, id=1)]
    return {
        "id": node.type, "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": alone.saved_nodes(), "links": [],
        "groups": [], "definitions": {"subgraphs": [node.inside.saved_subgraph()]}, "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Columns of nodes with a title, each a width in pixels and what is in it from top to bottom."""

    title: str
    colour: str
    columns: tuple[tuple[int, tuple[Node, ...]], ...]


def saved(title: str, graph: Graph, groups: list[Group], note: str, note_height: int) -> dict:
    """The editor's format of a workflow: the groups' columns from left to right, a note over them, and a view that opens
    there. Links to the next column are drawn straight; longer ones run above all columns, so that none passes under a
    node that it has nothing to do with."""
    columns = [column for group in groups for column in group.columns]
    column_of = {node: i for i, (_, nodes) in enumerate(columns) for node in nodes}
    lanes = _lanes(graph, column_of)
    top = -TITLE - 24 - LANE * len(lanes)  # of the uppermost lane
    x, lefts = 0, []
    for width, nodes in columns:
        lefts.append(x)
        y = 0
        for node in nodes:
            node.width, node.height = width, node.height or node.needed_height()
            node.at = x, y
            y += node.height + TITLE + 26
        x += width + GAP
    bottom = max(node.at[1] + node.height for node in column_of)
    links = [[n, o.node.id, o.slot, node.id, place, o.type] for n, o, node, place in graph.links()]
    nodes = graph.saved_nodes()
    head = top - 60  # of the groups
    note_at = -16, head - note_height - 40
    nodes.append({
        "id": max(node.id for node in graph.nodes) + 1, "type": "MarkdownNote", "title": "How to use this", "pos": list(note_at),
        "size": [NOTE, note_height], "flags": {}, "order": len(nodes), "mode": 0, "inputs": [], "outputs": [], "properties": {},
        "widgets_values": [note], "color": "#432", "bgcolor": "#653",
    })  # fmt: skip
    boxes, first = [], 0
    for number, group in enumerate(groups, 1):
        last = first + len(group.columns) - 1
        left, right = lefts[first] - 16, lefts[last] + columns[last][0] + 16
        boxes.append({"id": number, "title": group.title, "bounding": [left, head, right - left, bottom - head + 20],
                      "color": group.colour, "font_size": 24, "flags": {}})  # fmt: skip
        first = last + 1
    extra = {"ds": {"scale": ZOOM, "offset": [margin / ZOOM - at for margin, at in zip(MARGIN, note_at)]}}
    reroutes, ends = _reroutes(graph, lanes, column_of, lefts, top)
    extra["reroutes"] = reroutes
    extra["linkExtensions"] = [{"id": link, "parentId": reroute} for link, reroute in ends.items()]
    subgraphs = {node.type: node.inside for node in graph.nodes if node.inside is not None}
    return {
        "id": str(uuid.UUID(int=0)),  # none: each time it is opened it is another workflow, see web/graph.js
        "revision": 0, "last_node_id": nodes[-1]["id"],
        "last_link_id": len(links), "nodes": nodes, "links": links, "groups": boxes,
        "definitions": {"subgraphs": [inside.saved_subgraph() for inside in subgraphs.values()]},
        "config": {}, "extra": extra, "version": 0.4,
    }  # fmt: skip


def _lanes(graph: Graph, column_of: dict[Node, int]) -> list[Output]:
    """The outputs with links that pass over columns, in the order of their height."""
    passing = (o for _, o, node, _ in graph.links() if column_of[node] > column_of[o.node] + 1)
    return list(dict.fromkeys(passing))


def _reroutes(graph: Graph, lanes: list[Output], column_of: dict[Node, int], lefts: list[int], top: int):
    """The points that links are led through, one in each gap that an output's lane comes to; and the last point of each
    link, by its number."""
    points, ends = [], {}
    for lane, output in enumerate(lanes):
        links = [(number, column_of[node]) for number, o, node, _ in graph.links() if o == output]
        start, before = column_of[output.node], None
        height = output.node.at[1] + SLOT // 2 + SLOT * output.slot
        if height > FAR:  # straight up in the gap, for a curve from there would bulge into the next column
            passing = [number for number, column in links if column > start + 1]
            points.append({"id": len(points) + 1, "pos": [lefts[start + 1] - GAP // 2, height], "linkIds": passing})
            before = points[-1]["id"]
        for gap in range(start, max(column for _, column in links)):  # the gap behind column `gap`
            through = [number for number, column in links if column > gap and column > start + 1]
            point = {"id": len(points) + 1, "pos": [lefts[gap + 1] - GAP // 2, top + LANE * lane], "linkIds": through}
            if before is not None:
                point["parentId"] = before
            points.append(point)
            before = point["id"]
            ends |= dict.fromkeys(through, before)
        for number, o, node, place in graph.links():
            height = node.at[1] + SLOT // 2 + SLOT * place
            if o == output and number in ends and height > FAR:  # straight down in the gap, too
                below = [lefts[column_of[node]] - GAP // 2, height]
                points.append({"id": len(points) + 1, "pos": below, "linkIds": [number], "parentId": ends[number]})
                ends[number] = points[-1]["id"]
    return points, ends
