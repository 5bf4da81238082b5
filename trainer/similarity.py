"""How near one picture is to another, and where an edit should change it. Pure functions of pictures (height, width, 3)
in 0..1 and regions, booleans (height, width)."""
import numpy as np
import torch
import torch.nn.functional as F

MOST = 100.0  # dB of two equal pictures, so that a mean stays a number
SIGMA, RADIUS = 1.5, 5  # pixels: the Gaussian window of SSIM, 11 x 11
C1, C2 = 0.01**2, 0.03**2  # K1 and K2 of SSIM, squared
BLUR, DIFFERS, GROWN = 2.0, 0.03, 2  # pixels, of 0..1, pixels; JPEG at quality 50 stays below on nearly all of a picture


def psnr(picture: np.ndarray, target: np.ndarray, region: np.ndarray | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB, at most 100; where there is a ``region``, of it alone, and None if it is empty."""
    _check(picture, target)
    error = (picture.astype(np.float64) - target) ** 2
    error = error if region is None else error[region]
    return -10 * float(np.log10(max(error.mean(), 10 ** (-MOST / 10)))) if error.size else None


def ssim(picture: np.ndarray, target: np.ndarray, region: np.ndarray | None = None) -> float | None:
    """Structural similarity, 1 for equal pictures (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861).

    The mean over the channels and over the pixels, of the ``region`` if there is one, around which a whole window lies in the
    picture; None if there are none.
    """
    return _mean(_structure(picture, target), region)


def by_region(picture: np.ndarray, target: np.ndarray, region: np.ndarray | None) -> dict[str, float]:
    """`psnr` and `ssim` of the whole and, where there is a ``region`` that the edit changes, `psnr_changed`, `ssim_changed` in
    it and `psnr_kept`, `ssim_kept` in the rest; without those of which there are none."""
    structure, found = _structure(picture, target), {}
    for name, where in {"": None, **({} if region is None else {"_changed": region, "_kept": ~region})}.items():
        found |= {f"psnr{name}": psnr(picture, target, where), f"ssim{name}": _mean(structure, where)}
    return {score: value for score, value in found.items() if value is not None}


def _structure(picture: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """The structural similarity around each pixel that has a whole window, a mean over the channels; None if none has."""
    _check(picture, target)
    if min(picture.shape[:2]) <= 2 * RADIUS:
        return None
    x, y = _channels(picture), _channels(target)
    mx, my, xx, yy, xy = _blurred(torch.cat([x, y, x * x, y * y, x * y]), SIGMA, RADIUS).chunk(5)
    luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
    structure = (2 * (xy - mx * my) + C2) / (xx - mx**2 + yy - my**2 + C2)
    return (luminance * structure).mean((0, 1)).numpy()


def _mean(structure: np.ndarray | None, region: np.ndarray | None) -> float | None:
    if structure is None:
        return None
    if region is not None:
        structure = structure[region[RADIUS:-RADIUS, RADIUS:-RADIUS]]
    return float(structure.mean()) if structure.size else None


def changed(start: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The region (height, width) of ``target`` that an edit should change, since it differs from the input there.

    An input of another size is scaled to the target's. A pixel differs by as much as it lies outside of all that the other
    picture has within a pixel around it, so that a shift by one is no difference; and this is blurred, so that the noise of
    JPEG is none either. The region is grown a little, since edits fade out.
    """
    a, b = _channels(start), _channels(target)
    if a.shape != b.shape:
        a = F.interpolate(a, b.shape[-2:], mode="bilinear", antialias=True)
    a, b = _luma_and_chroma(a), _luma_and_chroma(b)
    outside = torch.maximum(_outside(a, b), _outside(b, a)).amax(0, keepdim=True)
    differs = (_blurred_to_the_edge(outside) > DIFFERS).double()
    return F.max_pool2d(differs, 2 * GROWN + 1, 1, GROWN)[0, 0].bool().numpy()


def _outside(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """By how much ``a`` is above or below all that ``b`` has within a pixel."""
    highest, lowest = F.max_pool2d(b, 3, 1, 1), -F.max_pool2d(-b, 3, 1, 1)
    return (a - highest).clamp_min(0) + (lowest - a).clamp_min(0)


def _luma_and_chroma(rgb: torch.Tensor) -> torch.Tensor:
    """Brightness and two colours (3, 1, height, width), these blurred, since JPEG keeps them at half the resolution
    (ITU-R BT.601)."""
    red, green, blue = rgb
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, *_blurred_to_the_edge(torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402]))])


def _blurred_to_the_edge(channels: torch.Tensor) -> torch.Tensor:
    radius = round(3 * BLUR)
    return _blurred(F.pad(channels, [radius] * 4, "replicate"), BLUR, radius)


def _blurred(channels: torch.Tensor, sigma: float, radius: int) -> torch.Tensor:
    """(n, 1, height, width) under a Gaussian window, where the whole of it, ``radius`` pixels to each side, fits in."""
    window = torch.exp(-(torch.arange(-radius, radius + 1, dtype=channels.dtype) ** 2) / (2 * sigma**2))
    for axis in (-2, -1):  # sums of what is shifted are several times faster than conv2d in float64
        size = channels.shape[axis] - 2 * radius
        blurred = torch.zeros_like(channels.narrow(axis, 0, size))
        for shift, weight in enumerate((window / window.sum()).tolist()):
            blurred.add_(channels.narrow(axis, shift, size), alpha=weight)
        channels = blurred
    return channels


def _channels(picture: np.ndarray) -> torch.Tensor:
    """(3, 1, height, width) in float64."""
    return torch.tensor(picture, dtype=torch.float64).movedim(-1, 0)[:, None]


def _check(picture: np.ndarray, target: np.ndarray) -> None:
    if picture.shape != target.shape:
        raise ValueError(f"A picture of shape {picture.shape} cannot be compared with one of {target.shape}.")
