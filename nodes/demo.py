"""The tiny base model for trying everything out on a CPU, without downloads."""
from comfy_api.latest import io


class PairLoRADemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRADemoModel",
            display_name="Tiny Demo Model",
            category="PairLoRA",
            description="A very small image-editing model that ships with the pack, for learning how PairLoRA works in "
            "minutes on any computer. For real work load FLUX.1 Kontext, FLUX.2 or Qwen-Image-Edit instead.",
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def execute(cls):
        from ..trainer.host import demo_model

        return io.NodeOutput(*demo_model.load())
