"""What training takes on cards that are not here: `python3 benchmarks/memory.py [MODEL ...] [--quick]`.

For full-size models of ComfyUI's own classes without weights it prints the plan that the pack would choose on each card:
counted, not measured on a card. The last line is one JSON object, {"rows": [...]}. `--quick` leaves out all but 1024
pixels, one reference and rank 16.
"""
import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests")]

GIB = 1024**3
CARDS = (8, 12, 16, 24, 32, 48, 80)  # GiB
TAKEN = 1.3  # GiB of each that CUDA, its kernels and ComfyUI keep
SIZES, REFERENCES, RANKS = (512, 768, 1024), (1, 3), (16, 64)


def kinds():
    """Full-size models, by name: the zoo's kind with the network of its released weights, and the tokens of a caption."""
    import zoo

    flux = dict(zoo.FLUX, vec_in_dim=768, context_in_dim=4096, hidden_size=3072, num_heads=24, depth=19,
                depth_single_blocks=38, axes_dim=[16, 56, 56], txt_ids_dims=[])  # fmt: skip
    flux2 = dict(zoo.FLUX2, axes_dim=[32] * 4, txt_ids_dims=[3])
    unet = dict(
        use_checkpoint=False, image_size=32, in_channels=8, out_channels=4, model_channels=320, legacy=False,
        use_spatial_transformer=True, use_temporal_attention=False, use_temporal_resblock=False,
    )  # fmt: skip
    networks = {
        "FLUX.1 Kontext": ("FLUX.1 Kontext", flux, 4096, 256),
        "FLUX.2 dev": ("FLUX.2", flux2 | dict(hidden_size=6144, num_heads=48, depth=8, depth_single_blocks=48,
                                              context_in_dim=15360), 15360, 512),
        "FLUX.2 klein 4B": ("FLUX.2 klein", flux2 | dict(hidden_size=3072, num_heads=24, depth=5, depth_single_blocks=20,
                                                         context_in_dim=7680, guidance_embed=False), 7680, 512),
        "FLUX.2 klein 9B": ("FLUX.2 klein", flux2 | dict(hidden_size=4096, num_heads=32, depth=8, depth_single_blocks=24,
                                                         context_in_dim=12288, guidance_embed=False), 12288, 512),
        "Qwen-Image-Edit": ("Qwen-Image-Edit-2509", dict(image_model="qwen_image", in_channels=64, num_layers=60), 3584, 64),
        "OmniGen2": ("OmniGen2", dict(
            image_model="omnigen2", axes_dim_rope=[40, 40, 40], axes_lens=[1024, 1664, 1664], ffn_dim_multiplier=None,
            hidden_size=2520, in_channels=16, multiple_of=256, norm_eps=1e-5, num_attention_heads=21, num_kv_heads=7,
            num_layers=32, num_refiner_layers=2, out_channels=None, patch_size=2, text_feat_dim=2048, timestep_scale=1000.0,
        ), 2048, 96),
        "Z-Image": ("Z-Image", dict(zoo.Z_IMAGE, dim=3840, n_heads=30, n_kv_heads=30, n_layers=30, n_refiner_layers=2,
                                    cap_feat_dim=2560, axes_dims=[32, 48, 48]), 2560, 128),
        "SDXL InstructPix2Pix": ("SDXL InstructPix2Pix", unet | dict(
            num_classes="sequential", adm_in_channels=2816, num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4],
            transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_middle=10, use_linear_in_transformer=True,
            context_dim=2048, num_head_channels=64, transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
        ), 2048, 77),
        "SD1.5 InstructPix2Pix": ("SD1.5 InstructPix2Pix", unet | dict(
            adm_in_channels=None, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4], num_heads=8, num_head_channels=-1,
            transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1, use_linear_in_transformer=False,
            context_dim=768, transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        ), 768, 77),
    }  # fmt: skip
    by_name = {kind.name: kind for kind in zoo.KINDS}
    pooled = {"FLUX.1 Kontext": 768, "SDXL InstructPix2Pix": 1280}
    for name, (kind, network, width, tokens) in networks.items():
        text = {"pooled_output": (1, pooled[kind])} if kind in pooled else by_name[kind].text
        yield name, replace(by_name[kind], network=network, width=width, text=text), tokens


SEEN_BY_ENCODER = 204  # tokens that Qwen2.5-VL makes of a reference
PRECISIONS = {"bf16": ("bfloat16", None), "fp8": ("float8_e4m3fn", "bfloat16"), "fp16": ("float16", None)}


def precisions(name: str) -> list[str]:
    return ["fp16"] if "Pix2Pix" in name else ["bf16", "fp8"]


@dataclass(frozen=True)
class Row:
    """Of the smallest card that all weights find room on: the ``plan``, and the bytes beside the weights that a step takes
    (adapter, gradients, optimizer, activations) as ``peak_gb``, in 10^9 bytes. ``cards`` says what is done on each, None
    where it does not fit, and ``step`` is all that was counted: see ``Counted`` in trainer/plan/simulate.py."""

    model: str
    precision: str
    size: int
    references: int
    rank: int
    weights_gb: float
    peak_gb: float
    plan: str
    card_gb: int | None
    cards: dict[int, str | None]
    step: dict[str, int]


def model(kind, precision: str):
    """The full-size model, without storage."""
    import comfy.model_patcher
    import torch
    import zoo

    config = zoo.config_of(kind, *(dtype and getattr(torch, dtype) for dtype in PRECISIONS[precision]))
    cpu = torch.device("cpu")
    with torch.inference_mode(False):
        return comfy.model_patcher.ModelPatcher(config.get_model({}, "", device=torch.device("meta")), cpu, cpu)


def row(name: str, kind, there, precision: str, tokens: int, size: int, references: int, rank: int) -> Row:
    import torch
    import zoo

    from tiny import module

    plan, device = module("plan"), torch.device("cuda")
    words = " ".join(["word"] * (tokens - 4 + (SEEN_BY_ENCODER - 2) * references * (kind.config == "QwenImage")))
    sample = zoo.encoded(kind, 0, references, size=(size, size), caption=words, patcher=there)
    simulation = plan.Simulation(there, sample, 1, rank, device)
    weights, chosen = there.model_size(), {}
    for card in CARDS:
        try:
            chosen[card] = plan.cheapest(simulation, weights, int((card - TAKEN) * GIB), device)
        except plan.DoesNotFit:
            chosen[card] = None
    resident = next((card for card in CARDS if chosen[card] and not chosen[card].streamed), None)
    best = chosen[resident or CARDS[-1]]
    return Row(
        name, precision, size, references, rank, weights / 1e9, round(best.counted.total / 1e9, 3) if best else 0.0,
        best.words if best else "", resident, {card: found and found.words for card, found in chosen.items()},
        vars(best.counted) if best else {},
    )  # fmt: skip


def count(names: list[str], quick: bool) -> list[Row]:
    rows = []
    for name, kind, tokens in kinds():
        if names and not any(part.lower() in name.lower() for part in names):
            continue
        for precision in precisions(name):
            there = model(kind, precision)
            several = [0] if not kind.references else [1] if "Pix2Pix" in name else REFERENCES
            for size in SIZES[-1:] if quick else SIZES:
                for references in several[:1] if quick else several:
                    for rank in RANKS[:1] if quick else RANKS:
                        start = time.monotonic()
                        rows.append(row(name, kind, there, precision, tokens, size, references, rank))
                        print(f"  {name} {precision} {size} px, {references} references, rank {rank}: "
                              f"{rows[-1].plan} ({time.monotonic() - start:.1f} s)", file=sys.stderr, flush=True)  # fmt: skip
    return rows


def table(rows: list[Row]) -> str:
    """For rank 16 and the fewest references: the smallest card that holds all weights, in brackets the smallest that
    trains with some of them streamed, and of how many blocks how many are recomputed on the first; with a star, their
    inputs in system memory."""
    sizes = sorted({r.size for r in rows})
    lines = ["| model | weights, GB |" + "".join(f" {size} px |" for size in sizes), "|---" * (2 + len(sizes)) + "|"]
    by_model: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        by_model.setdefault((r.model, r.precision), []).append(r)
    for (name, precision), of in by_model.items():
        fewest = min(r.references for r in of), min(r.rank for r in of)
        shown = [next(r for r in of if (r.size, r.references, r.rank) == (size, *fewest)) for size in sizes]
        lines.append(f"| {name} {precision} | {of[0].weights_gb:.1f} |" + "".join(f" {cell(r)} |" for r in shown))
    return "\n".join(lines)


def cell(r: Row) -> str:
    streaming = next((card for card in CARDS if r.cards[card]), None)
    smaller = f" ({streaming})" if streaming != r.card_gb else ""
    numbers = re.findall(r"\d+", r.plan)
    blocks = "none" if not numbers else f"{numbers[0]}/{numbers[-1]}" + "*" * ("system memory" in r.plan)
    return f"{r.card_gb or '-'}{smaller}: {blocks}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="parts of their names; all where none is given")
    parser.add_argument("--quick", action="store_true", help="1024 pixels, one reference and rank 16 only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.inside:
        from host import Host

        host = Host().prepare()
        environment = {"OMP_NUM_THREADS": "1", **host.environment()}
        sys.exit(subprocess.call(host.command(Path(__file__), "--inside", *sys.argv[1:]), env=environment))
    import launch

    launch.choose_device()
    launch.load_pack()
    rows = count(asked.models, asked.quick)
    print(table(rows))
    print(json.dumps({"rows": [vars(r) for r in rows]}))


if __name__ == "__main__":
    main()
