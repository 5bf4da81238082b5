"""The nodes: a schema and a thin execute each, which calls the library in trainer/."""
from comfy_api.latest import ComfyExtension

from . import apply, compare, dataset, demo, train


class PairLoRAExtension(ComfyExtension):
    async def get_node_list(self):
        return [
            dataset.PairLoRADataset,
            dataset.PairLoRASample,
            train.PairLoRASettings,
            train.PairLoRATrain,
            apply.PairLoRALoad,
            compare.PairLoRABeforeAfter,
            demo.PairLoRADemoModel,
        ]
