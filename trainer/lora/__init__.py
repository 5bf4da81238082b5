"""LoRA layers on a frozen ComfyUI model, and the file they are saved to."""
