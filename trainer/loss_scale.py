"""Keeping gradients inside the range of float16."""
import torch

START = 2.0**12  # brings the gradient of a full-size latent's mean, 1e-5 and less, to where float16 is exact
PATIENCE = 1000  # steps without an overflow after which it is doubled again, up to START


class LossScale:
    """What the loss is multiplied by before the backward pass and the gradient divided by after it.

    ComfyUI computes SD1.5 and SDXL in float16. The loss is a mean over up to 262,144 numbers, so its gradient begins below
    float16's normal range and, unscaled, reaches a LoRA wrong by a sixth to a third (Micikevicius et al. 2018,
    https://arxiv.org/abs/1710.03740, section 3.2). Other dtypes have the range of float32; for them it is 1.
    """

    def __init__(self, dtype: torch.dtype):
        self.value = START if dtype == torch.float16 else 1.0
        self.most, self.steps = self.value, 0  # steps since it last changed

    def grow(self) -> None:
        """After a step whose gradient was finite."""
        self.steps += 1
        if self.steps >= PATIENCE and self.value < self.most:
            self.value, self.steps = self.value * 2, 0

    def back_off(self) -> bool:
        """After a gradient that overflowed; False when the scale was not what made it overflow."""
        if self.value <= 1:
            return False
        self.value, self.steps = self.value / 2, 0
        return True
