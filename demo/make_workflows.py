"""The recipe of example_workflows/ and of the same prompts in demo/workflows/: `python3 demo/host.py demo/make_workflows.py`.

Files, addresses and the nodes that sample a model are those of ComfyUI's own workflow template for it.
"""
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client import Client
from editor import Graph, Group, Node, Output, UnknownNode, saved
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
    known: dict, dataset: Output, base: Output, trained: Output, clip: Output, vae: Output, graph: Graph, how: Callable,
    which: str = "held-out", references: int = 1,
) -> Node:  # fmt: skip
    """A subgraph that makes a picture of each sample with the base model and one with the LoRA: ``how(inside, clip, vae,
    samples)`` adds the nodes that are common to both, and gives a Picture."""
    inside = Graph(known, "Before and after", 101, dataset="PAIRLORA_DATASET", model="MODEL", model_with_lora="MODEL", clip="CLIP",
                   vae="VAE")  # fmt: skip
    samples = inside.node("PairLoRASample", dataset=inside.input("dataset"), which=which)
    picture = how(inside, inside.input("clip"), inside.input("vae"), samples)
    inside.gives = {"before": picture(inside.input("model")), "after": picture(inside.input("model_with_lora"))}
    starts = {"input": "start", "input1": "start1", "input2": "start2"}
    inside.gives |= {name: samples[start] for name, start in list(starts.items())[:references]}
    inside.gives |= {"target": samples["target"], "names": samples["name"]}
    inside.shown = [(samples, "which")]
    return graph.subgraph(inside, dataset=dataset, model=base, model_with_lora=trained, clip=clip, vae=vae)


def compare(graph: Graph, made: Node) -> Node:
    return graph.node("PairLoRABeforeAfter", height=760, **{name: made[name] for name in made.inside.gives})


# --- the tiny demo model ------------------------------------------------------------------------------------------------

TOY = """## {title} in {minutes} minutes, on any computer

1. Press **Run**. *Tiny Demo Model*, which comes with PairLoRA, learns from the 24 pairs of *{folder}*. Watch **Train Edit LoRA**.
2. Look at **Before / After**: six samples that it was not trained on.

**Your own edit**: put {files} into a folder of ComfyUI's *input* and, if you like, the instruction as *photo001.txt* beside them. Choose that folder in *Load Paired Dataset*, and a second one as pairs that are not trained on; or take the wire out of *held_out*, connect the first dataset to *Before and after*, and write *held-out* there.

**A real model**: open the PairLoRA template that is named after it; it has the right nodes and settings. To exchange the toy here instead, put the loaders of FLUX.1 Kontext in place of *Tiny Demo Model*, then set *resolution* to 1024 and *background* to *as LoadImage* in both datasets, *learning_rate* to 0.0001, *batch_size* to 1 and *timesteps* back to *family default*.
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


def toy(known: dict, slug: str, lora: str, references: int, note: str) -> Workflow:
    graph = Graph(known)
    base = graph.node("PairLoRADemoModel")

    def dataset(title: str, folder: str, id: int) -> Node:
        return graph.node("PairLoRADataset", title, id=id, height=660, folder=folder, resolution=128, background="white")

    pairs = dataset("Load Paired Dataset", f"samples/{slug}", 2)
    settings = graph.node("PairLoRASettings", id=3, height=360, batch_size=4, timesteps="uniform", save_as="float32",
                          hold_out="a tenth", hand_on="best")  # fmt: skip
    held_out = dataset("Load Paired Dataset (not trained on)", f"samples/{slug}-held-out", 5)
    train = graph.node("PairLoRATrain", id=4, height=640, model=base["model"], clip=base["clip"], vae=base["vae"],
                       dataset=pairs["dataset"], settings=settings["settings"], held_out=held_out["dataset"], learning_rate=0.002,
                       name=lora, continue_from="none")  # fmt: skip
    made = before_and_after(known, held_out["dataset"], base["model"], train["model"], base["clip"], base["vae"], graph,
                            toy_sampler(references), "all", references)  # fmt: skip
    groups = [
        Group("1 Pairs", BLUE, ((PAIRS, (pairs, held_out)),)),
        Group("2 Train", AMBER, ((LOADERS, (base, settings)), (TRAIN, (train,)))),
        Group("3 Compare", GREEN, ((SAMPLE, (made,)), (COMPARE, (compare(graph, made),)))),
    ]
    return Workflow(graph, groups, note)


def background_removal(known: dict) -> Workflow:
    note = TOY.format(title="Background removal", minutes="two", folder="samples/background-removal",
                      files="*photo001_start.jpg* and *photo001_end.jpg*")  # fmt: skip
    return toy(known, "background-removal", "background_removal", 1, note)


def try_on(known: dict) -> Workflow:
    note = TOY.format(title="Try-on with three inputs", minutes="five", folder="samples/try-on",
                      files="*photo001_start.jpg*, *photo001_start1.jpg*, *photo001_start2.jpg* and *photo001_end.jpg*")  # fmt: skip
    return toy(known, "try-on", "try_on", 3, note)


# By the name of its prompt: the name that ComfyUI's template browser shows and searches, and what makes it.
WORKFLOWS: dict[str, tuple[str, Callable[[dict], Workflow]]] = {
    "background-removal": ("train an edit LoRA (background removal)", background_removal),
    "try-on": ("train an edit LoRA from several inputs (try-on)", try_on),
}


def template(slug: str) -> Path:
    """The file of an example workflow."""
    return ROOT / f"example_workflows/PairLoRA - {WORKFLOWS[slug][0]}.json"


def prompt(slug: str) -> Path:
    """The file of the same workflow as the page queues it."""
    return ROOT / f"demo/workflows/{slug}.api.json"


def made(slug: str, known: dict) -> tuple[dict, dict]:
    """An example workflow and its prompt, for a ComfyUI that ``known``, its /object_info, tells of; raises UnknownNode."""
    title, make = WORKFLOWS[slug]
    workflow = make(known)
    return saved(title, workflow.graph, workflow.groups, workflow.note, workflow.note_height), workflow.graph.api()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host()
        with Server(host, base=host.make_base(Path(folder))) as server:
            known = Client(server.url).get("/object_info")
    for slug in WORKFLOWS:
        try:
            for file, content in zip((template(slug), prompt(slug)), made(slug, known)):
                file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(slug)
        except UnknownNode as missing:
            print(f"{slug}: left as it is, since this ComfyUI has no {missing}")


if __name__ == "__main__":
    main()
