"""The recipe of example_workflows/, of the same prompts in demo/workflows/ and of the blueprints in subgraphs/:
`python3 demo/host.py demo/make_workflows.py`.

Files, addresses and the nodes that sample a model are those of ComfyUI's own workflow template for it.
"""
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client import Client
from editor import Graph, Group, Node, Output, UnknownNode, blueprint, saved
from host import ROOT, Host, Server

BLUE, AMBER, GREEN = "#3f789e", "#b58b2a", "#88aa88"
PAIRS, LOADERS, TRAIN, SAMPLE, COMPARE = 370, 300, 340, 230, 440  # widths of columns
HUGGING_FACE = "https://huggingface.co/{}/resolve/main/{}"


@dataclass(frozen=True)
class Workflow:
    graph: Graph
    groups: list[Group]
    note: str
    note_height: int = 250


Picture = Callable[[Output], Output]  # an IMAGE made with a MODEL


def before_and_after(
    graph: Graph, how: Callable, dataset: Output, model: Output, trained: Output, clip: Output, vae: Output,
    which: str = "held-out", references: int = 1,
) -> Node:  # fmt: skip
    """A subgraph that makes a picture of each sample with ``model`` and one with the LoRA, which is on the model ``trained``
    or, where that is a text, in the file of that name: ``how(inside, clip, vae, samples)`` adds the nodes that are common to
    both, and gives a Picture."""
    second = "lora_name" if trained.type == "STRING" else "model_with_lora"
    inside = Graph(graph.known, "Before and after", 101, dataset="PAIRLORA_DATASET", model="MODEL",
                   **{second: trained.type}, clip="CLIP", vae="VAE")  # fmt: skip
    samples = inside.node("PairLoRASample", dataset=inside.input("dataset"), which=which)
    picture = how(inside, inside.input("clip"), inside.input("vae"), samples)
    base = inside.input("model")
    if second == "model_with_lora":
        after = inside.input(second)
    else:
        after = inside.node("PairLoRALoad", model=base, lora=inside.input(second), strength=1.0)["model"]
    inside.gives = {"before": picture(base), "after": picture(after)}
    starts = {"input": "start", "input1": "start1", "input2": "start2"}
    inside.gives |= {name: samples[start] for name, start in list(starts.items())[:references]}
    inside.gives |= {"target": samples["target"], "names": samples["name"]}
    inside.shown = [(samples, "which")]
    return graph.subgraph(inside, dataset=dataset, model=model, **{second: trained}, clip=clip, vae=vae)


def compare(graph: Graph, made: Node) -> Node:
    return graph.node("PairLoRABeforeAfter", tall=760, **{name: made[name] for name in made.inside.gives})


# --- the tiny demo model ------------------------------------------------------------------------------------------------

TOY = """## {title} in {minutes} minutes, on any computer

1. Press **Run**. *Tiny Demo Model*, which comes with PairLoRA, learns from the 24 pairs of *{folder}*. Watch **Train Edit LoRA**.
2. Look at **Before / After**: six samples that it was not trained on.

**Your own edit**: put {files} into a folder of ComfyUI's *input* and, if you like, the instruction as *photo001.txt* beside them. Choose that folder in *Load Paired Dataset*, and a second one as pairs that are not trained on; or take the wire out of *held_out*, connect the first dataset to *Before and after*, and write *held-out* there.

**A real model**: open the PairLoRA template that is named after it; it has the right nodes and settings. To exchange the toy here instead, put that model's loaders in place of *Tiny Demo Model* and the node *PairLoRA before and after* with its name in place of *Before and after*, then set *resolution* to 1024 and *background* to *as LoadImage* in both datasets, *learning_rate* to 0.0001, *batch_size* to 1 and *timesteps* back to *family default*.
"""


def toy_sampler(references: int) -> Callable:
    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        caption = g.node("CLIPTextEncode", "Caption of each sample", clip=clip, text=samples["caption"])
        latents = [
            g.node("VAEEncode", f"Input {i + 1}", pixels=samples[f"start{i or ''}"], vae=vae)["latent"] for i in range(references)
        ]
        positive = caption["conditioning"]
        for latent in latents:
            positive = g.node("ReferenceLatent", conditioning=positive, latent=latent)["conditioning"]
        negative = g.node("ConditioningZeroOut", conditioning=caption["conditioning"])["conditioning"]
        return k_sampler(g, vae, positive, negative, latents[0])

    return how


def k_sampler(g: Graph, vae, positive, negative, latent, steps=20, cfg=1.0, sampler="euler", scheduler="simple") -> Picture:
    def picture(model: Output) -> Output:
        sampled = g.node("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, seed=0, steps=steps,
                         cfg=cfg, sampler_name=sampler, scheduler=scheduler, denoise=1.0)  # fmt: skip
        return g.node("VAEDecode", samples=sampled["latent"], vae=vae)["image"]

    return picture


def toy(known: dict, slug: str, lora: str, references: int, note: str, **training) -> Workflow:
    """``training`` are values of Train Edit LoRA that are not the demo's."""
    graph = Graph(known)
    base = graph.node("PairLoRADemoModel")

    def dataset(title: str, folder: str, id: int) -> Node:
        return graph.node("PairLoRADataset", title, id=id, tall=660, folder=folder, resolution=128, background="white")

    pairs = dataset("Load Paired Dataset", f"samples/{slug}", 2)
    settings = graph.node("PairLoRASettings", id=3, batch_size=4, timesteps="uniform", save_as="float32",
                          hold_out="a tenth", hand_on="best")  # fmt: skip
    held_out = dataset("Load Paired Dataset (not trained on)", f"samples/{slug}-held-out", 5)
    train = graph.node("PairLoRATrain", id=4, tall=640, model=base["model"], clip=base["clip"], vae=base["vae"],
                       dataset=pairs["dataset"], settings=settings["settings"], held_out=held_out["dataset"],
                       **{"learning_rate": 0.002, "name": lora, "continue_from": "none", **training})  # fmt: skip
    made = before_and_after(graph, toy_sampler(references), held_out["dataset"], base["model"], train["model"], base["clip"],
                            base["vae"], "all", references)  # fmt: skip
    groups = in_three_groups((pairs, held_out), (base, settings), train, made, compare(graph, made))
    return Workflow(graph, groups, note)


def background_removal(known: dict) -> Workflow:
    note = TOY.format(title="Background removal", minutes="two", folder="samples/background-removal",
                      files="*photo001_start.jpg* and *photo001_end.jpg*")  # fmt: skip
    return toy(known, "background-removal", "background_removal", 1, note)


def try_on(known: dict) -> Workflow:
    note = TOY.format(title="Try-on with three inputs", minutes="five", folder="samples/try-on",
                      files="*photo001_start.jpg*, *photo001_start1.jpg*, *photo001_start2.jpg* and *photo001_end.jpg*")  # fmt: skip
    return toy(known, "try-on", "try_on", 3, note)


# --- real models ----------------------------------------------------------------------------------------------------------


def file(repository: str, path: str, directory: str = "") -> tuple[str, str, str]:
    """Name, directory and address of a model file, as ComfyUI wants them to offer the download."""
    *_, folder, name = f"/{path}".split("/")
    return name, directory or folder, HUGGING_FACE.format(repository, path)


KONTEXT = file("Comfy-Org/flux1-kontext-dev_ComfyUI", "split_files/diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors")
CLIP_L = file("comfyanonymous/flux_text_encoders", "clip_l.safetensors", "text_encoders")
T5 = file("comfyanonymous/flux_text_encoders", "t5xxl_fp8_e4m3fn_scaled.safetensors", "text_encoders")
FLUX_VAE = file("Comfy-Org/Lumina_Image_2.0_Repackaged", "split_files/vae/ae.safetensors")
FLUX2 = file("Comfy-Org/flux2-dev", "split_files/diffusion_models/flux2_dev_fp8mixed.safetensors")
MISTRAL = file("Comfy-Org/flux2-dev", "split_files/text_encoders/mistral_3_small_flux2_bf16.safetensors")
FLUX2_VAE = file("Comfy-Org/flux2-dev", "split_files/vae/flux2-vae.safetensors")
KLEIN = file("black-forest-labs/FLUX.2-klein-base-4b-fp8", "flux-2-klein-base-4b-fp8.safetensors", "diffusion_models")
QWEN3_4B = file("Comfy-Org/z_image_turbo", "split_files/text_encoders/qwen_3_4b.safetensors")
QWEN_2509 = file("Comfy-Org/Qwen-Image-Edit_ComfyUI", "split_files/diffusion_models/qwen_image_edit_2509_fp8_e4m3fn.safetensors")
QWEN_2511 = file("Comfy-Org/Qwen-Image-Edit_ComfyUI", "split_files/diffusion_models/qwen_image_edit_2511_fp8mixed.safetensors")
QWEN_VL = file("Comfy-Org/Qwen-Image_ComfyUI", "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors")
QWEN_VAE = file("Comfy-Org/Qwen-Image_ComfyUI", "split_files/vae/qwen_image_vae.safetensors")
LONGCAT = file("TalmajM/LongCat-Image-Edit_ComfyUI_repackaged", "split_files/diffusion_models/longcat_image_edit_bf16.safetensors")
PIX2PIX = file("timbrooks/instruct-pix2pix", "instruct-pix2pix-00-22000.safetensors", "checkpoints")
Z_IMAGE = file("Comfy-Org/z_image", "split_files/diffusion_models/z_image_bf16.safetensors")
Z_IMAGE_TURBO = file("Comfy-Org/z_image_turbo", "split_files/diffusion_models/z_image_turbo_bf16.safetensors")
ADAPTER = file("ostris/zimage_turbo_training_adapter", "zimage_turbo_training_adapter_v2.safetensors", "loras")
QWEN3_VL = file("Comfy-Org/Qwen3-VL", "text_encoders/qwen3vl_4b_fp8_scaled.safetensors")

EDIT = """## Train an edit LoRA on {model}

**Model files** go into these folders of *ComfyUI/models*; what is missing ComfyUI offers to download when you open this: {files}.

1. **Pairs**: put {names} into a folder of ComfyUI's *input*, with the instruction as *photo001.txt* if you like, and choose it in *Load Paired Dataset*. It starts on the small sample pictures that come with PairLoRA. About 20 pairs are enough for a simple edit.
2. **Train**: press **Run**. {settings}
3. **Compare**: *Before and after* makes the pairs that training keeps to itself, without and with the LoRA. Of fewer than 12 pairs it keeps none: write *all* there. Open it to change how pictures are made.

{more}
"""
ONE_INPUT = "*photo001_start.jpg* and *photo001_end.jpg*"
THREE_INPUTS = "*photo001_start.jpg*, *photo001_start1.jpg*, *photo001_start2.jpg* and *photo001_end.jpg*"


def where(*files: tuple[str, str, str]) -> str:
    return ", ".join(f"[{name}]({address}) in *{directory}*" for name, directory, address in files)


@dataclass(frozen=True)
class Base:
    """Loaders of a base model, with what they give."""

    loaders: tuple[Node, ...]
    model: Output
    clip: Output
    vae: Output


def separate(g: Graph, model: tuple, texts: list[tuple], kind: str, vae: tuple) -> Base:
    """A base model whose parts are files of their own; ``kind`` is the type of its text encoders."""
    unet = g.node("UNETLoader", models=[model], unet_name=model[0], weight_dtype="default")
    if len(texts) == 2:
        clip = g.node("DualCLIPLoader", models=texts, clip_name1=texts[0][0], clip_name2=texts[1][0], type=kind, device="default")
    else:
        clip = g.node("CLIPLoader", models=texts, clip_name=texts[0][0], type=kind, device="default")
    decoder = g.node("VAELoader", models=[vae], vae_name=vae[0])
    return Base((unet, clip, decoder), unet["model"], clip["clip"], decoder["vae"])


def edit(
    known: dict, load: Callable[[Graph], Base], how: Callable, lora: str, note: str, references: int = 1, resolution: int = 1024,
    folder: str = "", background: str = "white", steps: int = 1000, learning_rate: float = 1e-4, note_height: int = 330, **settings,
) -> Workflow:  # fmt: skip
    """Dataset, base model, training and comparison; ``settings`` are those of Training Settings that are not its defaults."""
    graph = Graph(known)
    folder = folder or ("samples/background-removal" if references == 1 else "samples/try-on")
    pairs = graph.node("PairLoRADataset", tall=660, folder=folder, resolution=resolution, background=background)
    base = load(graph)
    chosen = graph.node("PairLoRASettings", timesteps="family default", save_as="float32", hold_out="a tenth",
                        hand_on="best", **settings)  # fmt: skip
    train = graph.node("PairLoRATrain", tall=640, model=base.model, clip=base.clip, vae=base.vae, dataset=pairs["dataset"],
                       settings=chosen["settings"], steps=steps, learning_rate=learning_rate, name=lora, continue_from="none")  # fmt: skip
    made = before_and_after(graph, how, pairs["dataset"], base.model, train["model"], base.clip, base.vae,
                            references=references)  # fmt: skip
    return Workflow(graph, in_three_groups((pairs,), (*base.loaders, chosen), train, made, compare(graph, made)), note, note_height)


def in_three_groups(pairs: tuple[Node, ...], loaders: tuple[Node, ...], train: Node, made: Node, compared: Node) -> list[Group]:
    return [
        Group("1 Pairs", BLUE, ((PAIRS, pairs),)),
        Group("2 Train", AMBER, ((LOADERS, loaders), (TRAIN, (train,)))),
        Group("3 Compare", GREEN, ((SAMPLE, (made,)), (COMPARE, (compared,)))),
    ]


def encoded(g: Graph, clip: Output, text: Output | str, title: str | None = None) -> Output:
    return g.node("CLIPTextEncode", title, clip=clip, text=text)["conditioning"]


def latent_of(g: Graph, picture: Output, vae: Output) -> Output:
    return g.node("VAEEncode", pixels=picture, vae=vae)["latent"]


def kontext(known: dict) -> Workflow:
    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        caption, latent = encoded(g, clip, samples["caption"], "Caption of each sample"), latent_of(g, samples["start"], vae)
        reference = g.node("ReferenceLatent", conditioning=caption, latent=latent)["conditioning"]
        positive = g.node("FluxGuidance", conditioning=reference, guidance=2.5)["conditioning"]
        negative = g.node("ConditioningZeroOut", conditioning=caption)["conditioning"]
        return k_sampler(g, vae, positive, negative, latent)

    note = EDIT.format(
        model="FLUX.1 Kontext", files=where(KONTEXT, CLIP_L, T5, FLUX_VAE), names=ONE_INPUT,
        settings="Rank 16 and learning rate 0.0001 are those of [ostris' example for "
        "Kontext](https://github.com/ostris/ai-toolkit/blob/main/config/examples/train_lora_flux_kontext_24gb.yaml), which "
        "calls 500 to 4,000 steps a good range.",
        more="*resolution* 512 trains four times as fast, and is how to begin on a small card.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, KONTEXT, [CLIP_L, T5], "flux", FLUX_VAE), how, "kontext_edit", note)


def flux2_sampler(cfg: float | None) -> Callable:
    """``cfg`` None is for a model that has taken its guidance in."""

    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        caption, latent = encoded(g, clip, samples["caption"], "Caption of each sample"), latent_of(g, samples["start"], vae)
        if cfg is None:
            caption = g.node("FluxGuidance", conditioning=caption, guidance=4.0)["conditioning"]
        positive = g.node("ReferenceLatent", conditioning=caption, latent=latent)["conditioning"]
        size = g.node("GetImageSize", image=samples["start"])
        empty = g.node("EmptyFlux2LatentImage", width=size["width"], height=size["height"])["latent"]
        sigmas = g.node("Flux2Scheduler", steps=20, width=size["width"], height=size["height"])["sigmas"]
        sampler = g.node("KSamplerSelect", sampler_name="euler")["sampler"]
        noise = g.node("RandomNoise", noise_seed=0)["noise"]
        if cfg is not None:
            nothing = encoded(g, clip, "", "No caption")
            negative = g.node("ReferenceLatent", conditioning=nothing, latent=latent)["conditioning"]

        def picture(model: Output) -> Output:
            if cfg is None:
                guider = g.node("BasicGuider", model=model, conditioning=positive)["guider"]
            else:
                guider = g.node("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)["guider"]
            sampled = g.node("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=empty)
            return g.node("VAEDecode", samples=sampled["output"], vae=vae)["image"]

        return picture

    return how


def flux2_dev(known: dict) -> Workflow:
    note = EDIT.format(
        model="FLUX.2 dev", files=where(FLUX2, MISTRAL, FLUX2_VAE), names=ONE_INPUT,
        settings="Rank 16, learning rate 0.0001, 1,000 steps and a warm-up of 200 are those of [diffusers' example for "
        "FLUX.2](https://github.com/huggingface/diffusers/blob/main/examples/dreambooth/README_flux2.md#training-image-to-image).",
        more="This is a model of 32 billion parameters: on a card of less than 48 GB its weights are streamed, which is slow. "
        "FLUX.2 klein has a workflow of its own.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, FLUX2, [MISTRAL], "flux2", FLUX2_VAE), flux2_sampler(None), "flux2_edit", note,
                warmup=200)  # fmt: skip


def flux2_klein(known: dict) -> Workflow:
    note = EDIT.format(
        model="FLUX.2 klein base 4B", files=where(KLEIN, QWEN3_4B, FLUX2_VAE), names=ONE_INPUT,
        settings="Rank 32, learning rate 0.0001 and 1,200 steps are those of [a trainer of edit pairs for this "
        "model](https://replicate.com/usamaehsan/klein-4b-lora-lab/api).",
        more="Train on this *base* model. The LoRA can be used with the distilled klein afterwards, which makes pictures in four "
        "steps. Needs a ComfyUI of 2026, which knows its text encoder.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, KLEIN, [QWEN3_4B], "flux2", FLUX2_VAE), flux2_sampler(5.0), "klein_edit", note,
                steps=1200, rank=32)  # fmt: skip


def qwen_sampler(shift: float, steps: int, cfg: float, method: str = "") -> Callable:
    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        pictures = {"image1": samples["start"], "image2": samples["start1"], "image3": samples["start2"]}

        def conditioned(text: Output | str, title: str) -> Output:
            made = g.node("TextEncodeQwenImageEditPlus", title, clip=clip, vae=vae, prompt=text, **pictures)["conditioning"]
            if not method:
                return made
            return g.node("FluxKontextMultiReferenceLatentMethod", conditioning=made, reference_latents_method=method)["conditioning"]

        positive, negative = conditioned(samples["caption"], "Caption of each sample"), conditioned("", "No caption")
        sample = k_sampler(g, vae, positive, negative, latent_of(g, samples["start"], vae), steps, cfg)
        return lambda model: sample(g.node("ModelSamplingAuraFlow", model=model, shift=shift)["model"])

    return how


def qwen_2509(known: dict) -> Workflow:
    note = EDIT.format(
        model="Qwen-Image-Edit 2509, with three inputs", files=where(QWEN_2509, QWEN_VL, QWEN_VAE), names=THREE_INPUTS,
        settings="Rank 16 and learning rate 0.0001 are those of [ostris' example for "
        "2509](https://github.com/ostris/ai-toolkit/blob/main/config/examples/train_lora_qwen_image_edit_2509_32gb.yaml), which "
        "calls 500 to 4,000 steps a good range.",
        more="With one or two inputs a pair, open *Before and after* and take out the wires of those that are missing.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, QWEN_2509, [QWEN_VL], "qwen_image", QWEN_VAE), qwen_sampler(3.0, 20, 2.5),
                "qwen_2509_edit", note, 3)  # fmt: skip


def qwen_2511(known: dict) -> Workflow:
    note = EDIT.format(
        model="Qwen-Image-Edit 2511, with three inputs", files=where(QWEN_2511, QWEN_VL, QWEN_VAE), names=THREE_INPUTS,
        settings="Rank 32 and learning rate 0.0001 are those of [DiffSynth's example for "
        "2511](https://github.com/modelscope/DiffSynth-Studio/blob/main/examples/qwen_image/model_training/lora/Qwen-Image-Edit-2511.sh).",
        more="With one or two inputs a pair, open *Before and after* and take out the wires of those that are missing. Needs a "
        "ComfyUI of 2026, which knows how this release places its references.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, QWEN_2511, [QWEN_VL], "qwen_image", QWEN_VAE),
                qwen_sampler(3.1, 40, 4.0, "index_timestep_zero"), "qwen_2511_edit", note, 3, rank=32)  # fmt: skip


def longcat(known: dict) -> Workflow:
    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        def conditioned(text: Output | str, title: str) -> Output:
            made = g.node("TextEncodeQwenImageEdit", title, clip=clip, vae=vae, prompt=text, image=samples["start"])["conditioning"]
            placed = g.node("FluxKontextMultiReferenceLatentMethod", conditioning=made, reference_latents_method="index")
            return g.node("FluxGuidance", conditioning=placed["conditioning"], guidance=4.5)["conditioning"]

        positive, negative = conditioned(samples["caption"], "Caption of each sample"), conditioned("", "No caption")
        return k_sampler(g, vae, positive, negative, latent_of(g, samples["start"], vae), 50, 4.5)

    note = EDIT.format(
        model="LongCat-Image-Edit", files=where(LONGCAT, QWEN_VL, FLUX_VAE), names=ONE_INPUT,
        settings="Its makers give no settings for a LoRA; rank 16 and learning rate 0.0001 are [ostris' for "
        "Kontext](https://github.com/ostris/ai-toolkit/blob/main/config/examples/train_lora_flux_kontext_24gb.yaml), whose "
        "network is built alike.",
        more="Needs a ComfyUI of 2026, which knows this model.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, LONGCAT, [QWEN_VL], "longcat_image", FLUX_VAE), how, "longcat_edit", note)


def pix2pix(known: dict) -> Workflow:
    def load(g: Graph) -> Base:
        node = g.node("CheckpointLoaderSimple", models=[PIX2PIX], ckpt_name=PIX2PIX[0])
        return Base((node,), node["model"], node["clip"], node["vae"])

    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        caption, nothing = encoded(g, clip, samples["caption"], "Caption of each sample"), encoded(g, clip, "", "No caption")
        both = g.node("InstructPixToPixConditioning", positive=caption, negative=nothing, vae=vae, pixels=samples["start"])
        return k_sampler(g, vae, both["positive"], both["negative"], both["latent"], 20, 7.5, scheduler="normal")

    note = EDIT.format(
        model="SD 1.5 InstructPix2Pix", files=where(PIX2PIX), names=ONE_INPUT,
        settings="Rank 4, learning rate 0.00005, two pairs at once and four times that before each step are those of [diffusers' "
        "example](https://github.com/huggingface/diffusers/tree/main/examples/research_projects/instructpix2pix_lora), which "
        "goes on for 15,000 steps.",
        more="The smallest of the editing models: it trains on a card of 8 GB.",
    )  # fmt: skip
    return edit(known, load, how, "pix2pix_edit", note, resolution=512, steps=2000, learning_rate=5e-5, rank=4, batch_size=2,
                accumulation=4)  # fmt: skip


# --- styles, from pictures without a before -------------------------------------------------------------------------------

STYLE = """## {title}

**Model files** go into these folders of *ComfyUI/models*; what is missing ComfyUI offers to download when you open this: {files}.

1. **Pictures**: put pictures of your style, *style01.jpg* and so on, into the folder *my_style* of ComfyUI's *input*, each with a caption beside it, *style01.txt*, that says what is in it but nothing of the style. 15 to 30 are enough. A *trigger_word* is put in front of every caption.
2. **Train**: press **Run**. {settings}
3. **Compare**: *Before and after* makes pictures from the captions that training keeps to itself, without and with the LoRA. Of fewer than 12 pictures it keeps none: write *all* there.

{more}
"""


def z_image_sampler(steps: int, cfg: float) -> Callable:
    def how(g: Graph, clip: Output, vae: Output, samples: Node) -> Picture:
        caption = encoded(g, clip, samples["caption"], "Caption of each sample")
        negative = encoded(g, clip, "", "No caption") if cfg != 1 else g.node("ConditioningZeroOut", conditioning=caption)["conditioning"]
        size = g.node("GetImageSize", image=samples["target"])
        empty = g.node("EmptySD3LatentImage", width=size["width"], height=size["height"])["latent"]
        sample = k_sampler(g, vae, caption, negative, empty, steps, cfg, "res_multistep")
        return lambda model: sample(g.node("ModelSamplingAuraFlow", model=model, shift=3.0)["model"])

    return how


def style(known: dict) -> Workflow:
    note = STYLE.format(
        title="Train a style LoRA on Z-Image from captioned pictures", files=where(Z_IMAGE, QWEN3_4B, FLUX_VAE),
        settings="Rank 32 and learning rate 0.0001 are those of [DiffSynth's example for "
        "Z-Image](https://github.com/modelscope/DiffSynth-Studio/blob/main/examples/z_image/model_training/lora/Z-Image.sh).",
        more="The LoRA can be used with Z-Image Turbo too, which makes pictures in eight steps.",
    )  # fmt: skip
    return edit(known, lambda g: separate(g, Z_IMAGE, [QWEN3_4B], "lumina2", FLUX_VAE), z_image_sampler(25, 4.0), "my_style", note,
                0, folder="my_style", background="as LoadImage", rank=32)  # fmt: skip


def training_adapter(known: dict) -> Workflow:
    """The adapter lies under the LoRA while that is trained, and is left out of the pictures."""
    note = STYLE.format(
        title="Train a style LoRA on Z-Image Turbo through a training adapter",
        files=where(Z_IMAGE_TURBO, ADAPTER, QWEN3_4B, FLUX_VAE),
        settings="A model that was distilled to few steps loses that when it is trained on. [Ostris' "
        "adapter](https://huggingface.co/ostris/zimage_turbo_training_adapter), a LoRA that lies on the model while yours is "
        "trained, slows that down; keep trainings short. Rank 32 and learning rate 0.0001 as for [Z-Image "
        "itself](https://github.com/modelscope/DiffSynth-Studio/blob/main/examples/z_image/model_training/lora/Z-Image.sh).",
        more="*Before and after* takes the model without the adapter and puts your LoRA's file on it: that is how to use it, in "
        "eight steps.",
    )  # fmt: skip
    graph = Graph(known)
    pictures = graph.node("PairLoRADataset", tall=660, folder="my_style", background="as LoadImage")
    base = separate(graph, Z_IMAGE_TURBO, [QWEN3_4B], "lumina2", FLUX_VAE)
    settings = graph.node("PairLoRASettings", rank=32, timesteps="family default", save_as="float32",
                          hold_out="a tenth", hand_on="best")  # fmt: skip
    adapter = graph.node("LoraLoaderModelOnly", "Training adapter", [ADAPTER], model=base.model, lora_name=ADAPTER[0],
                         strength_model=1.0)  # fmt: skip
    train = graph.node("PairLoRATrain", tall=640, model=adapter["model"], clip=base.clip, vae=base.vae,
                       dataset=pictures["dataset"], settings=settings["settings"], name="my_turbo_style",
                       continue_from="none")  # fmt: skip
    made = before_and_after(graph, z_image_sampler(8, 1.0), pictures["dataset"], base.model, train["lora_name"], base.clip,
                            base.vae, references=0)  # fmt: skip
    groups = [
        Group("1 Pairs", BLUE, ((310, (pictures,)),)),
        Group("2 Train", AMBER, ((270, (*base.loaders, settings)), (220, (adapter,)), (310, (train,)))),
        Group("3 Compare", GREEN, ((215, (made,)), (300, (compare(graph, made),)))),
    ]
    return Workflow(graph, groups, note, 330)


# --- what else the nodes are for ------------------------------------------------------------------------------------------

CONTINUE = """## Go on from a LoRA

1. Run the workflow *train an edit LoRA (background removal)* first, or choose a LoRA of yours in *continue_from* of **Train Edit LoRA**. It must be of the base model that is connected; its own rank is kept.
2. Press **Run**. It is trained on for *steps* at half the rate and saved under a new name; the old file stays as it is.
3. **Before / After** shows the base model and the new LoRA on samples that it was not trained on.

A training that was cancelled goes on by itself when it is run again, without *continue_from*. Use this for other pairs, a lower rate, or a LoRA that somebody gave you.
"""


def going_on(known: dict) -> Workflow:
    return toy(known, "background-removal", "background_removal_more", 1, CONTINUE, steps=500, learning_rate=0.001,
               continue_from="background_removal.safetensors")  # fmt: skip


CHECKPOINTS = """## Compare checkpoints and strengths of a training

1. Press **Run**. *Tiny Demo Model*, which comes with PairLoRA, is trained for two minutes; of the checkpoints that are saved on the way some are kept.
2. *Checkpoints of a Run* gives out the model with each of them at each of its *strengths*, and *Before and after* makes a picture with each of the sample named in *which*.
3. **Before / After** shows them as a grid of checkpoints and strengths. Click a picture to see it large, and keep its checkpoint as a LoRA.

For another model put its loaders in place of *Tiny Demo Model*, and exchange *Before and after* by the one for that model: it is among the nodes as *PairLoRA before and after*, with the model's name. To look at a LoRA that is trained already, write its name into *Checkpoints of a Run* in place of the wire.
"""


def checkpoints(known: dict) -> Workflow:
    graph = Graph(known)
    base = graph.node("PairLoRADemoModel")
    pairs, held_out = (
        graph.node("PairLoRADataset", title, tall=660, folder=f"samples/{folder}", resolution=128, background="white")
        for title, folder in ((None, "background-removal"), ("Pairs that are not trained on", "background-removal-held-out"))
    )
    settings = graph.node("PairLoRASettings", batch_size=4, timesteps="uniform", save_as="float32",
                          hold_out="a tenth", hand_on="best", checkpoint_steps=250)  # fmt: skip
    train = graph.node("PairLoRATrain", tall=640, model=base["model"], clip=base["clip"], vae=base["vae"],
                       dataset=pairs["dataset"], settings=settings["settings"], held_out=held_out["dataset"], learning_rate=0.002,
                       name="checkpoints", continue_from="none")  # fmt: skip
    stages = graph.node("PairLoRACheckpoints", model=base["model"], lora=train["lora_name"], strengths="0.6, 0.8, 1.0")
    made = before_and_after(graph, toy_sampler(1), held_out["dataset"], base["model"], stages["model"], base["clip"],
                            base["vae"], "test001")  # fmt: skip
    shown = {name: made[name] for name in ("before", "after", "input", "target")}
    compared = graph.node("PairLoRABeforeAfter", tall=760, **shown, names=stages["label"])
    groups = [
        Group("1 Pairs", BLUE, ((310, (pairs, held_out)),)),
        Group("2 Train", AMBER, ((270, (base, settings)), (310, (train,)))),
        Group("3 Compare", GREEN, ((225, (stages,)), (215, (made,)), (310, (compared,)))),
    ]
    return Workflow(graph, groups, CHECKPOINTS)


BUILD = """## Build pairs for a restoration LoRA out of good pictures

1. Put good pictures into a folder of ComfyUI's *input* and choose it in *Load Paired Dataset*; it starts on pictures that come with PairLoRA. *Samples of a Dataset* gives them out one by one.
2. Press **Run**. Each picture is blurred, noise is added, and it is compressed; **Before / After** shows the worsened copy beside the good picture. Change the strengths until they look like what you want to restore, and leave out a step by bypassing its node.
3. *Save Pair to Dataset* writes the copy as *start*, the good picture as *end*, and the instruction, into the folder *restoration_pairs* of ComfyUI's *input*. Nothing is overwritten: running again with other strengths adds pairs. Choose that folder in any PairLoRA workflow that trains.

ComfyUI has no node for JPEG; *Compression* is its LTXV Preprocess, whose video codec leaves blocks and smears of the same kind.
"""


def build(known: dict) -> Workflow:
    graph = Graph(known)
    pictures = graph.node("PairLoRADataset", tall=660, folder="samples/background-removal-held-out", resolution=512,
                          background="white")  # fmt: skip
    samples = graph.node("PairLoRASample", dataset=pictures["dataset"], which="all")
    blurred = graph.node("ImageBlur", image=samples["target"], blur_radius=3, sigma=1.5)
    noisy = graph.node("ImageAddNoise", "Noise", image=blurred["image"], seed=0, strength=0.1)
    worse = graph.node("LTXVPreprocess", "Compression", image=noisy["image"], img_compression=35)["output_image"]
    saved_pair = graph.node("PairLoRASavePair", tall=300, folder="restoration_pairs", inputs=worse, target=samples["target"],
                            caption="restore the picture")  # fmt: skip
    compared = graph.node("PairLoRABeforeAfter", tall=600, before=worse, after=samples["target"], names=samples["name"])
    groups = [
        Group("1 Pictures", BLUE, ((PAIRS, (pictures,)), (230, (samples,)))),
        Group("2 Worsen", AMBER, ((200, (blurred,)), (200, (noisy,)), (200, (graph.nodes[4],)))),
        Group("3 Save pairs", GREEN, ((COMPARE, (saved_pair, compared)),)),
    ]
    return Workflow(graph, groups, BUILD)


CAPTION = """## Write captions for pairs with a language model

**Model file**: {files}, in *ComfyUI/models*; ComfyUI offers to download it when you open this. Needs a ComfyUI of 2026, which has *Generate Text*.

1. Choose your pairs in *Load Paired Dataset*; it starts on pairs that come with PairLoRA.
2. Press **Run**. The model sees start and end of each pair side by side and writes the instruction that leads from one to the other. Say in the *prompt* how you want it.
3. *Save Pair to Dataset* writes the pairs with their captions into the folder *captioned_pairs* of ComfyUI's *input*; the pairs that you chose are not changed. Read the captions in *Load Paired Dataset* and mend them there with *Edit*.
"""
INSTRUCTION = (
    "The picture shows a photo on the left and the same photo after an edit on the right. Write the instruction that an editor "
    "was given to get from the left to the right one. Answer with one short sentence in the imperative, and nothing else."
)


def caption(known: dict) -> Workflow:
    graph = Graph(known)
    pairs = graph.node("PairLoRADataset", tall=660, folder="samples/background-removal-held-out", resolution=512,
                       background="white")  # fmt: skip
    samples = graph.node("PairLoRASample", dataset=pairs["dataset"], which="all")
    beside = graph.node("ImageStitch", "Start and end side by side", image1=samples["start"], image2=samples["target"],
                        direction="right", spacing_color="white")  # fmt: skip
    model = graph.node("CLIPLoader", "Load language model", [QWEN3_VL], clip_name=QWEN3_VL[0], type="ideogram4", device="default")
    text = graph.node("TextGenerate", tall=420, clip=model["clip"], prompt=INSTRUCTION, image=beside["image"], max_length=64,
                      sampling_mode="off")["generated_text"]  # fmt: skip
    saved_pair = graph.node("PairLoRASavePair", tall=340, folder="captioned_pairs", inputs=samples["start"],
                            target=samples["target"], caption=text)  # fmt: skip
    shown = graph.node("PreviewAny", "Captions", tall=300, source=text)
    groups = [
        Group("1 Pairs", BLUE, ((PAIRS, (pairs,)), (230, (samples,)))),
        Group("2 Caption", AMBER, ((290, (beside, model)), (380, (graph.nodes[4],)))),
        Group("3 Save pairs", GREEN, ((400, (saved_pair, shown)),)),
    ]
    return Workflow(graph, groups, CAPTION.format(files=where(QWEN3_VL)))


# By the name of its prompt: the name that ComfyUI's template browser shows and searches, and what makes it.
WORKFLOWS: dict[str, tuple[str, Callable[[dict], Workflow]]] = {
    "background-removal": ("train an edit LoRA (background removal)", background_removal),
    "try-on": ("train an edit LoRA from several inputs (try-on)", try_on),
    "kontext": ("train an edit LoRA on FLUX.1 Kontext", kontext),
    "flux2-klein": ("train an edit LoRA on FLUX.2 klein base 4B", flux2_klein),
    "flux2-dev": ("train an edit LoRA on FLUX.2 dev", flux2_dev),
    "qwen-2509": ("train an edit LoRA on Qwen-Image-Edit 2509 (three inputs)", qwen_2509),
    "qwen-2511": ("train an edit LoRA on Qwen-Image-Edit 2511 (three inputs)", qwen_2511),
    "longcat": ("train an edit LoRA on LongCat-Image-Edit", longcat),
    "pix2pix": ("train an edit LoRA on SD 1.5 InstructPix2Pix", pix2pix),
    "style": ("train a style LoRA on Z-Image", style),
    "training-adapter": ("train a style LoRA on Z-Image Turbo (training adapter)", training_adapter),
    "continue": ("continue training from a LoRA", going_on),
    "checkpoints": ("compare LoRA checkpoints and strengths", checkpoints),
    "build": ("build a dataset of pairs (blur, noise, compression)", build),
    "caption": ("caption a dataset of pairs", caption),
}


# Whose subgraph is offered as a blueprint too, to be put into a workflow of the user's, and its name.
BLUEPRINTS = {
    "kontext": "FLUX.1 Kontext", "flux2-klein": "FLUX.2 klein base", "flux2-dev": "FLUX.2 dev",
    "qwen-2509": "Qwen-Image-Edit 2509", "qwen-2511": "Qwen-Image-Edit 2511", "longcat": "LongCat-Image-Edit",
    "pix2pix": "SD 1.5 InstructPix2Pix", "style": "Z-Image",
}  # fmt: skip


def template(slug: str) -> Path:
    """The file of an example workflow."""
    return ROOT / f"example_workflows/PairLoRA - {WORKFLOWS[slug][0]}.json"


def prompt(slug: str) -> Path:
    """The file of the same workflow as the page queues it."""
    return ROOT / f"demo/workflows/{slug}.api.json"


def made(slug: str, known: dict) -> dict[Path, dict]:
    """Files with what is in them: an example workflow, its prompt and perhaps a blueprint, for a ComfyUI that ``known``, its
    /object_info, tells of; raises UnknownNode."""
    title, make = WORKFLOWS[slug]
    workflow = make(known)
    content = saved(title, workflow.graph, workflow.groups, workflow.note, workflow.note_height)
    files = {template(slug): content, prompt(slug): workflow.graph.api()}
    if slug in BLUEPRINTS:
        node = next(node for node in workflow.graph.nodes if node.inside)
        files[ROOT / f"subgraphs/PairLoRA before and after ({BLUEPRINTS[slug]}).json"] = blueprint(node)
    return files


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host()
        with Server(host, base=host.make_base(Path(folder))) as server:
            known = Client(server.url).get("/object_info")
    for slug in WORKFLOWS:
        try:
            for file, content in made(slug, known).items():
                file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(slug)
        except UnknownNode as missing:
            print(f"{slug}: left as it is, since this ComfyUI has no {missing}")


if __name__ == "__main__":
    main()
