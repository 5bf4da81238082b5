"""Further words that the page's node search finds a node by, where ComfyUI takes them."""
from comfy_api.latest import io

WORDS = {
    "PairLoRADataset": ["before after", "pairs", "training data", "folder"],
    "PairLoRATrain": ["finetune", "lora trainer", "train lora"],
    "PairLoRALoad": ["lora loader", "download lora", "url"],
    "PairLoRABeforeAfter": ["compare", "slider", "image comparer", "contact sheet"],
    "PairLoRACheckpoints": ["compare", "xy plot", "strength"],
    "PairLoRASavePair": ["build dataset", "caption"],
}


def found(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, with its words in its schema."""
    define = node.define_schema.__func__

    def define_schema(cls):
        schema = define(cls)
        if hasattr(schema, "search_aliases"):
            schema.search_aliases = WORDS.get(schema.node_id, [])
        return schema

    node.define_schema = classmethod(define_schema)
    return node
