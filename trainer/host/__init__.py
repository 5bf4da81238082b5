"""Everything that touches ComfyUI: loading, encoding, the forward pass, autograd and applying a LoRA."""
