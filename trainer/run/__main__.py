"""Runs in a terminal: `python3 -m trainer.run OUTPUT` lists those in ComfyUI's output folder."""
import argparse
import sys
from pathlib import Path

if not __package__:  # run by its path: the Python of Windows' portable ComfyUI does not look into the present folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import trainer.run  # noqa: F401 - what is relative to it is found then

    __package__ = "trainer.run"

from .runs import remove, runs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m trainer.run", description="Lists the trainings in ComfyUI's output folder.")
    parser.add_argument("output", type=Path, help="ComfyUI's output folder")
    parser.add_argument("--remove", metavar="RUN", help="delete this run; its LoRAs in the loras folder stay")
    options = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # a console's own code page lacks most letters
    found = runs(options.output)
    if options.remove is not None:
        chosen = [run for run in found if run.path.name == options.remove]
        if not chosen:
            print(f"There is no run {options.remove!r} in {options.output / 'pairlora'}.", file=sys.stderr)
            return 1
        try:
            remove(chosen[0])
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{options.remove} is removed, {_megabytes(chosen[0].size)}.")
        return 0
    for run in found:
        words, finished = run.words, ", ".join(map(str, run.finished))
        about = f"{len(words['samples'])} samples of {words['dataset']} on {words['base']}" if words.get("samples") else "of an older version"
        print(f"{run.path.name:40} {_megabytes(run.size):>12}  step {run.step}, {f'LoRA of {finished}' if finished else 'no LoRA yet'}; {about}")
    print(f"{len(found)} runs, {_megabytes(sum(run.size for run in found))}")
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
