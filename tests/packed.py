"""Layers whose weights are packed, and unpacked when they run, as those of ComfyUI-GGUF."""
import comfy.ops
import torch


class PackedTensor(torch.Tensor):
    """Copied as ComfyUI-GGUF's tensors are: not at all."""

    def clone(self, *args, **kwargs):
        return self

    def detach(self, *args, **kwargs):
        return self


class Operations(comfy.ops.manual_cast):
    class Linear(comfy.ops.manual_cast.Linear):
        comfy_cast_weights = True

        def pack(self):
            """8 bits a number and a scale for every row."""
            scale = self.weight.detach().float().abs().amax(1, keepdim=True) / 127
            self.register_buffer("scale", scale)
            self.weight = torch.nn.Parameter((self.weight / scale).round().to(torch.int8), requires_grad=False)

        def cast_bias_weight(self, input=None, dtype=None, device=None, bias_dtype=None):
            dtype, device = dtype or input.dtype, device or input.device
            bias = None if self.bias is None else self.bias.to(device, dtype)
            return (self.weight.to(device).float() * self.scale.to(device)).to(dtype), bias

        def forward_comfy_cast_weights(self, input):
            return torch.nn.functional.linear(input, *self.cast_bias_weight(input))


def pack(model: torch.nn.Module, everywhere: bool = False) -> int:
    """Pack all Linears and, if ``everywhere``, give the other layers tensors of the same class, as newer hosts do with
    dynamic VRAM; returns how many of those there are."""
    others = 0
    for module in model.modules():
        if hasattr(module, "pack"):
            module.pack()
        elif everywhere and hasattr(module, "weight_function"):
            for key, p in module._parameters.items():
                if p is not None:
                    packed = p.detach().clone().as_subclass(PackedTensor)
                    setattr(module, key, torch.nn.Parameter(packed, requires_grad=False))
                    others += 1
    return others
