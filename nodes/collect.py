"""Training data from what other nodes of the graph have encoded."""
from comfy_api.latest import io

from ..trainer.host.collect import collect
from .dataset import Dataset


class PairLoRACollect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRACollect",
            display_name="Collect Conditioning",
            category="PairLoRA",
            description="Makes a dataset of conditioning and latents, one of each a sample, that any nodes have made: the "
            "way to train a model that came with nodes of its own. Put those nodes behind Samples of a Dataset, which "
            "gives out lists, and connect what they give here.",
            is_input_list=True,
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="What the sampler would get as positive: caption and references, once a sample."
                ),
                io.Latent.Input("latent", tooltip="The target of each sample, from VAE Encode."),
            ],
            outputs=[Dataset.Output(display_name="dataset")],
        )

    @classmethod
    def execute(cls, conditioning, latent):
        return io.NodeOutput(collect(conditioning, latent))
