"""PairLoRA's main job, on a real ComfyUI: train an edit LoRA from pairs and show before and after.

Queues the example workflow (demo/workflows/) on a headless ComfyUI, which the first run sets up inside the checkout.
The last line it prints is one JSON object with the figures.
"""
import argparse
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from host import ROOT, Host, Server, SetupError, check_port

WORKFLOWS = Path(__file__).with_name("workflows")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=("background-removal", "try-on"), default="background-removal",
                        help="which of the sample datasets to train on (%(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=int, help="training steps (those of the workflow: 1000)")
    parser.add_argument("--learning-rate", type=float, help="learning rate (that of the workflow: 0.002)")
    parser.add_argument("--kill-at", type=int, metavar="STEP",
                        help="kill the server there with -9, start it again and go on; shows that nothing is lost")  # fmt: skip
    parser.add_argument("--out", type=Path, default=ROOT / "demo_output", metavar="FOLDER",
                        help="where the LoRA and the picture go, into a new folder for each run (demo_output)")  # fmt: skip
    parser.add_argument("--port", type=int, help="port for the ComfyUI server (a free one)")
    return parser.parse_args()


def new_folder(parent: Path, name: str) -> Path:
    """A folder that did not exist before: `name-01`, `name-02`, ..."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (folder := parent / f"{name}-{number:02}").mkdir()
            return folder.resolve()
        except FileExistsError:
            number += 1


def find(prompt: dict, class_type: str) -> str:
    """The id of the one node of a class, or of the first."""
    return next(node for node, content in prompt.items() if content["class_type"] == class_type)


def show_progress(node: str, text: str) -> None:
    """Progress on one line of a terminal; in a file, a line for each of a few steps."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
    elif not text.startswith("step ") or (step := int(text.split()[1].split("/")[0])) == 1 or step % 50 == 0:
        print(text, flush=True)


def kill_at(step: int, server: Server, prompt: dict) -> None:
    """Queue a prompt on the server, and kill that once the training has come to a step."""
    from client import Client

    killed = False

    def kill(node: str, text: str) -> None:
        nonlocal killed
        show_progress(node, text)
        if text.startswith("step ") and int(text.split()[1].split("/")[0]) >= step:
            killed = True
            print(f"\nKilling ComfyUI at {text}", flush=True)
            server.kill()
            raise Killed

    with contextlib.suppress(Killed):
        Client(server.url).run(prompt, kill)
    if not killed:
        raise SetupError(f"The training was over before step {step}. Choose an earlier one with --kill-at.")


class Killed(Exception):
    """The server was killed on purpose."""


def demo(args: argparse.Namespace, host: Host) -> dict:
    """Run the workflow and return the figures."""
    from client import Client
    from figures import add_previews, exchange_references, psnr, white_part

    prompt = json.loads((WORKFLOWS / f"{args.dataset}.api.json").read_text(encoding="utf-8"))
    train = prompt[find(prompt, "PairLoRATrain")]["inputs"]
    train["steps"] = args.steps if args.steps is not None else train["steps"]
    train["learning_rate"] = args.learning_rate if args.learning_rate is not None else train["learning_rate"]
    sheet = find(prompt, "PairLoRABeforeAfter")
    previews = add_previews(prompt, sheet)
    prompt["sheet"] = {"class_type": "SaveImage", "inputs": {"images": [sheet, 0], "filename_prefix": "pairlora/sheet"}}

    out = new_folder(args.out, args.dataset)
    print(f"Starting ComfyUI from {host.comfyui}", flush=True)
    with Server(host, "--output-directory", str(out), port=args.port) as server:
        client = Client(server.url)
        if args.kill_at:
            kill_at(args.kill_at, server, prompt)
            server.start()
        outcome = client.run(prompt, show_progress)
        print()
        if outcome.interrupted:
            raise SystemExit("The training was cancelled.")
        pictures = {role: client.images(outcome, node) for role, node in previews.items()}
        target, after = pictures["target"], pictures["after"]
        figures = {f"psnr_{role}": psnr(pictures[role], target) for role in ("input", "before", "after")}
        figures |= dict.fromkeys(("psnr_blank", "psnr_subject_before", "psnr_subject_after", "psnr_swapped"))
        if args.dataset == "background-removal":
            subject = [~white_part(image) for image in target]
            figures["psnr_blank"] = psnr([image * 0 + 1 for image in target], target)
            for role in ("before", "after"):
                figures[f"psnr_subject_{role}"] = psnr(pictures[role], target, subject)
        else:
            swapped = exchange_references(host.base, args.dataset)
            prompt[prompt[find(prompt, "PairLoRASample")]["inputs"]["dataset"][0]]["inputs"]["folder"] = swapped
            after = client.images(client.run(prompt, show_progress), previews["after"])
            print()
            figures["psnr_swapped"] = psnr(after, target)

    record = next(out.glob(f"pairlora/*/step{train['steps']}.json"))
    done = json.loads(record.read_text(encoding="utf-8"))
    lora = out / done["files"][train["name"]]
    shutil.copyfile(record.with_name(done["best"]), lora)
    picture = out / "before_after.png"
    (saved,) = outcome.outputs["sheet"]["images"]
    shutil.copyfile(out / saved["subfolder"] / saved["filename"], picture)
    figures = {k: None if v is None else round(v, 2) for k, v in figures.items()}
    scores = {
        "best_step": done["best_step"], "held_out_loss_first": done["held_out_loss_first"],
        "held_out_loss_best": min(done["scores"].values()), "verdict": done["verdict"],
    }  # fmt: skip
    return {"dataset": args.dataset, "steps": train["steps"], "train_seconds": round(done["seconds"], 1), **figures, **scores,
            "resumed_from": done["resumed_from"], "lora_sha256": sha256(lora), "lora": str(lora), "picture": str(picture)}  # fmt: skip


def sha256(lora: Path) -> str:
    """Of a LoRA's numbers; its header has the time of day."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for key, value in sorted(load_file(lora).items()):
        digest.update(key.encode() + value.tobytes())
    return digest.hexdigest()


def main() -> int:
    args = arguments()
    try:
        if args.port:
            check_port(args.port)
        host = Host().prepare()
        if Path(sys.prefix).resolve() != host.venv.resolve():  # the rest needs what has been set up
            return subprocess.call([str(host.python), *sys.argv])
        start = time.monotonic()
        result = demo(args, host)
        print(f"LoRA:    {result['lora']}\npicture: {result['picture']}\n({time.monotonic() - start:.0f} s in all)")
        print(json.dumps(result))
        return 0
    except RuntimeError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
