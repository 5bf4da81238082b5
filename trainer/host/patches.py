"""What nodes have put on a MODEL, and what training does with it: the table in web/docs/PairLoRATrain.md in code.

Training sees what generating sees. Left out, with a word, is what keeps results from one picture for the next, merges
parts of a picture at random to be faster, or brings one picture to all samples. What belongs to guidance or to sampling
has no part in training. Where another pack's patch is met, it is said by its name.
"""
import contextlib
import inspect
import re
import types
from collections.abc import Callable, Iterator

import comfy.model_patcher
import torch

from .own_forwards import is_own, slots, source_of, through, title

KEEPS = "which keeps results of one picture for the next"
MERGES = "which is faster by merging or cutting up parts of the picture at random"
BRINGS = "which brings one picture to all samples"
AFTER = "which changes what comes out of the model for a part of the sampling"
UNKNOWN = "since PairLoRA does not know what it does around the model"

# What ComfyUI's nodes put on a MODEL and training leaves out: the first part of its name in ComfyUI's code, or its key, to
# the node and why.
LEFT_OUT = {
    "FluxKVCache": ("FluxKVCache", KEEPS), "KV_Attn_Input": ("FluxKVCache", KEEPS),
    "easycache": ("EasyCache", KEEPS), "lazycache": ("LazyCache", KEEPS), "animate2_cache": ("WanAnimate2Cache", KEEPS),
    "TomePatchModel": ("TomePatchModel", MERGES), "HyperTile": ("HyperTile", MERGES),
    "DiffSynthCnetPatch": ("QwenImageDiffsynthControlnet", BRINGS), "ZImageControlPatch": ("ZImageFunControlnet", BRINGS),
    "UsoStyleProjectorPatch": ("USOStyleReference", BRINGS), "SUPIRPatch": ("SUPIRApply", BRINGS),
    "AnimaLLLitePatch": ("AnimaLLLiteApply", BRINGS), "AnimaLLLiteAttentionPatch": ("AnimaLLLiteApply", BRINGS),
    "AnimaLLLiteMLPPatch": ("AnimaLLLiteApply", BRINGS), "WanUni3CCnetPatch": ("WanUni3CControlnetApply", BRINGS),
    "MultiTalkCrossAttnPatch": ("WanInfiniteTalkToVideo", BRINGS),
    "MultiTalkGetAttnMapPatch": ("WanInfiniteTalkToVideo", BRINGS),
    "infinite_talk_outer_sample": ("WanInfiniteTalkToVideo", BRINGS),
    "hidream_o1_patch_seam_smoothing": ("HiDreamO1PatchSeamSmoothing", AFTER),
}  # fmt: skip
GUIDANCE = dict.fromkeys(["NAGuidance", "SelfAttentionGuidance"])  # patches that change nothing in the prompt's own prediction
AROUND = {"ChromaRadianceOptions"}  # sets options for each call
SAMPLING = {"on_pre_run", "on_prepare_state", "on_apply_hooks"}  # callbacks of a sampler's run


def options(model: comfy.model_patcher.ModelPatcher) -> dict:
    """The transformer_options of ``model`` that training calls it with, in containers of their own.

    Training has an attention of its own, and takes part in no wrappers, which lie around the model or the sampling.
    """
    given = comfy.model_patcher.create_model_options_clone(model.model_options).get("transformer_options", {})
    without = {"wrappers", "callbacks", "optimized_attention_override", *LEFT_OUT}
    kept = {key: value for key, value in given.items() if key not in without}
    return _mapped(kept, lambda patch: None if is_comfyui(patch) and _first(patch) in LEFT_OUT | GUIDANCE else patch)


def called(transformer_options: dict) -> list[Callable]:
    """Every patch in transformer_options that the model calls."""
    found = []
    _mapped(transformer_options, found.append)
    return found


def one_at_a_time(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether what is on ``model`` may expect what a sampler gives: one sigma and one size for all of a batch."""
    return bool(called(model.model_options.get("transformer_options", {})) or around(model))


def guarded(transformer_options: dict) -> dict:
    """The same for a forward that autograd follows: what patches change in place are tensors of their own."""
    return _mapped(transformer_options, _guarded)


def _guarded(patch: Callable) -> Callable:
    def run(*args, **kwargs):
        if not torch.is_grad_enabled():
            return patch(*args, **kwargs)
        copies: dict[int, torch.Tensor] = {}  # q, k and v may be one tensor, and stay one

        def own(value):
            if not isinstance(value, torch.Tensor) or not value.requires_grad:
                return value
            if id(value) not in copies:
                copies[id(value)] = value.clone()
            return copies[id(value)]

        if isinstance(args[0], dict):  # of patches for whole blocks, all arguments lie in one
            args = {key: own(value) for key, value in args[0].items()}, *args[1:]
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
            return through(patch)(*map(own, args), **kwargs)

    return run


def around(model: comfy.model_patcher.ModelPatcher) -> Callable | None:
    """The function that training calls in place of the model, as the sampler does, with the model and its arguments."""
    wrapper = model.model_options.get("model_function_wrapper")
    while wrapper is not None and is_comfyui(wrapper) and _first(wrapper) in AROUND:
        if (wrapper := inspect.getclosurevars(wrapper).nonlocals.get("old_wrapper")) is None:
            return model.model_options["model_function_wrapper"]
    return None


def warnings(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """What to tell the user of patches that training leaves out, or cannot know."""
    given = model.model_options.get("transformer_options", {})
    wrappers, callbacks = (_by_key(*both) for both in (
        (model.wrappers, given.get("wrappers", {})), (model.callbacks, given.get("callbacks", {}))
    ))  # fmt: skip
    names = [name for name in given if name != "easycache"]  # EasyCache and LazyCache both; they have wrappers
    names += [key for _, key, _ in wrappers] + [_first(patch) for patch in called(given) if is_comfyui(patch)]
    found = [LEFT_OUT[name] for name in names if name in LEFT_OUT]
    unknown = [patch for _, _, patch in wrappers] + [patch for kind, _, patch in callbacks if kind in SAMPLING]
    if (function := model.model_options.get("model_function_wrapper")) and not around(model):
        unknown.append(function)
    found += [(title(patch), UNKNOWN) for patch in unknown if not is_comfyui(patch)]
    reasons: dict[str, list[str]] = {}
    for node, why in dict.fromkeys(found):
        reasons.setdefault(why, []).append(node)
    said = [f"Trained without {_listed(nodes)}, {why}. The MODEL that comes out still has it." for why, nodes in reasons.items()]
    if others := strangers(model):
        said.append(
            f"Trained with {_listed(others)} on the model, as it is when generating; PairLoRA does not know what it does. If "
            "the result is not what you expect, train without it."
        )
    return said


def _by_key(*places: dict[str, dict[str, list]]) -> list[tuple[str, str, Callable]]:
    """(kind, key, function) of wrappers or callbacks."""
    return [
        (kind, key, function)
        for place in places
        for kind, keys in place.items()
        for key, functions in keys.items()
        for function in functions
    ]


def strangers(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """What other packs have put into the model, by name."""
    return list(dict.fromkeys(map(title, _strangers(model))))


def _strangers(model: comfy.model_patcher.ModelPatcher) -> list[Callable]:
    """Their patches, replaced objects, injections and forwards."""
    found = called(options(model)) + [value for value in model.object_patches.values() if callable(value)]
    found += [injection.inject for injections in model.injections.values() for injection in injections]
    for module in filter(is_own, model.model.modules()):
        forwards = [getattr(holder, name) for holder, name in slots(module)]
        found += [forward for forward in forwards if getattr(forward, "__self__", None) is not module]
    return [patch for patch in found if not is_comfyui(patch)]


def check_keeps_nothing(model: comfy.model_patcher.ModelPatcher, predict: Callable, predict_another: Callable) -> None:
    """Try whether the patches of other packs on a loaded ``model`` keep something of one sample for the next, or draw at
    random; ``predict()`` and ``predict_another()`` give the model's predictions of two samples.

    Raises:
        ValueError: they do, so that nothing right can be learned through them.
    """
    if not (others := strangers(model)):
        return
    with _as_before(_strangers(model)):
        alone = predict()
    with _as_before(_strangers(model)):
        predict_another()
        behind_another = predict()
    if not torch.allclose(alone, behind_another, rtol=0.01, atol=0.01 * alone.abs().max().item()):
        raise ValueError(
            f"What the model gives for a picture changes with the pictures before it, by {_listed(others)}. Connect the model "
            "to Train Edit LoRA without it."
        )


@contextlib.contextmanager
def _as_before(patches: list[Callable]) -> Iterator[None]:
    """Give the closures, dicts, lists and objects of its own pack that each of ``patches`` leads to their content back on
    the way out."""
    seen, cells, containers = {}, [], []

    def look_into(value, pack: str) -> None:
        if id(value) in seen:
            return
        seen[id(value)], inside = value, []
        if isinstance(value, types.FunctionType):
            filled = [cell for cell in value.__closure__ or () if cell != types.CellType()]
            cells.extend((cell, cell.cell_contents) for cell in filled)
            inside = [value.__defaults__, *(cell.cell_contents for cell in filled)]
        elif isinstance(value, types.MethodType):
            inside = [value.__func__, value.__self__]
        elif isinstance(value, (dict, list)):
            containers.append((value, value.copy()))
            inside = value.values() if isinstance(value, dict) else value
        elif isinstance(value, tuple):
            inside = value
        elif type(value).__module__.split(".")[0] == pack and hasattr(value, "__dict__"):
            inside = [vars(value)]
        for v in list(inside):
            look_into(v, pack)

    for patch in patches:
        look_into(patch, (source_of(patch).__module__ or "").split(".")[0])
    try:
        yield
    finally:
        for cell, value in cells:
            cell.cell_contents = value
        for container, value in containers:
            container.clear()
            container.extend(value) if isinstance(container, list) else container.update(value)


@contextlib.contextmanager
def uncompiled(model: torch.nn.Module) -> Iterator[None]:
    """Have the modules of ``model`` that torch.compile has wrapped as they were before."""
    compiled = [
        (parent._modules, name, child)
        for parent in list(model.modules())
        for name, child in parent._modules.items()
        if child is not None and "_orig_mod" in child._modules
    ]
    calls = [(vars(m), m._compiled_call_impl) for m in model.modules() if getattr(m, "_compiled_call_impl", None)]
    try:
        for children, name, child in compiled:
            children[name] = child._orig_mod
        for attributes, _ in calls:
            attributes["_compiled_call_impl"] = None
        yield
    finally:
        for attributes, call in calls:
            attributes["_compiled_call_impl"] = call
        for children, name, child in compiled:
            children[name] = child


def is_comfyui(patch) -> bool:
    """Whether it comes with ComfyUI or torch; ComfyUI's server loads its extra nodes by their path."""
    module = source_of(patch).__module__ or ""
    return module.split(".")[0] in ("comfy", "comfy_api", "torch") or bool(re.search(r"(^|[\\/.])comfy_extras[\\/.]nodes_\w+$", module))


def _first(patch) -> str:
    return source_of(patch).__qualname__.split(".")[0]


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _mapped(transformer_options: dict, change: Callable) -> dict:
    """transformer_options with every patch changed, and without those for which ``change`` gives None."""

    def changed(patch):
        if not isinstance(patch, tuple):
            return change(patch)
        new = change(patch[-1])  # (class of a layer, patch)
        return new and (*patch[:-1], new)

    def kept(place):
        if isinstance(place, dict):
            return {key: new for key, patch in place.items() if (new := changed(patch)) is not None}
        return [new for patch in place if (new := changed(patch)) is not None]

    mapped = dict(transformer_options)
    for key in {"patches", "patches_replace"} & mapped.keys():
        mapped[key] = {name: new for name, place in mapped[key].items() if (new := kept(place))}
        if not mapped[key]:
            del mapped[key]
    return mapped
