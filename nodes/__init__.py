"""The nodes: a schema and a thin execute each, which calls the library in trainer/."""
from comfy_api.latest import ComfyExtension

from . import apply, checkpoints, collect, compare, dataset, demo, editing, limits, routes, runs, save_pair, train  # noqa: F401  (routes)


class PairLoRAExtension(ComfyExtension):
    async def get_node_list(self):
        nodes = [
            dataset.PairLoRADataset,
            dataset.PairLoRASample,
            collect.PairLoRACollect,
            save_pair.PairLoRASavePair,
            train.PairLoRASettings,
            train.PairLoRATrain,
            apply.PairLoRALoad,
            compare.PairLoRABeforeAfter,
            checkpoints.PairLoRACheckpoints,
            demo.PairLoRADemoModel,
        ]
        return [limits.checked(node) for node in nodes]
