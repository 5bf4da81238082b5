"""The training loops that are compared, on the same random Flux, samples, LoRA layers and optimizer: the pack's own, a bare
one, a hand-written one on diffusers' class, and ComfyUI's own trainer."""
import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import zoo
from torch.utils.checkpoint import checkpoint

from tiny import module, watch

HEAD = 128  # the width of a head, as in the released models
TEXT = 64  # tokens of a caption
ROWS = 8  # of tokens, in each image
LEARNING_RATE = 1e-4

OnStep = Callable[[], None]  # called after each update of the optimizer


@dataclass(frozen=True)
class Case:
    """What is trained: a Flux of ``hidden`` width and ``depth`` double and single blocks, 138 million parameters by default,
    on ``tokens`` image tokens, which target and references share."""

    dtype: torch.dtype = torch.float32
    tokens: int = 256
    references: int = 1
    recomputed: bool = False
    batch: int = 1
    rank: int = 16
    hidden: int = 1024
    depth: tuple[int, int] = (2, 4)
    samples: int = 4

    def __str__(self) -> str:
        words = [f"{self.tokens} tokens", str(self.dtype).removeprefix("torch.")]
        words += [f"batch {self.batch}"] if self.batch > 1 else []
        return ", ".join(words + ["all blocks recomputed"] * self.recomputed)

    @property
    def kind(self) -> zoo.Kind:
        network = dict(hidden_size=self.hidden, num_heads=self.hidden // HEAD, depth=self.depth[0],
                       depth_single_blocks=self.depth[1], axes_dim=[16, 56, 56])  # fmt: skip
        flux = next(kind for kind in zoo.KINDS if kind.name == "FLUX.1 Kontext")
        return replace(flux, network=flux.network | network)

    def encoded(self, seed: int):
        """A sample as the pack keeps it."""
        generator = torch.Generator().manual_seed(seed)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        image = 1, 16, 2 * ROWS, 2 * (self.tokens // (1 + self.references) // ROWS)
        options = {"pooled_output": randn(1, self.kind.width), "guidance": 1.0}
        if self.references:
            options["reference_latents"] = [randn(*image) for _ in range(self.references)]
        conditioning = [[randn(1, TEXT, self.kind.width), options]]
        return module("host.encode").Encoded(f"sample{seed}", randn(*image), conditioning)


class Pack:
    """The loop that the nodes run."""

    def __init__(self, case: Case, samples=None):
        recompute = module("host.recompute")
        self.case, self.model = case, zoo.model(case.kind, case.dtype)
        self.samples = samples or [case.encoded(seed) for seed in range(case.samples)]
        how = recompute.EVERYTHING if case.recomputed else recompute.NOTHING
        self.plan = module("plan").Plan(how, sum(case.depth), None, 0, 0, 0, measured=0, batch=case.batch, at_once=case.batch)

    def run(self, steps: int, on_step: OnStep) -> None:
        loop = module("loop")
        settings = loop.Settings(self.case.rank, self.case.batch)
        loop.train(self.model, self.samples, settings, steps, LEARNING_RATE, watch(lambda *_: on_step()), self.plan)


class Bare:
    """No more than a step needs: ComfyUI's network of ordinary torch layers, peft's LoRA inside it, velocity loss, clip, AdamW.

    It shares the weights of ``pack``. Updates in place, which would break its gradients, and attention are the pack's.
    """

    def __init__(self, case: Case, pack: Pack):
        import peft

        self.case = case
        self.network = zoo.model(case.kind, case.dtype, operations=torch.nn).model.diffusion_model
        self.network.load_state_dict(pack.model.model.diffusion_model.state_dict(), assign=True)
        self.network.requires_grad_(False)
        self.samples = [module("host.forward").condition(pack.model, sample) for sample in pack.samples]
        config = peft.LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=list(module("lora.inject").targets(self.network)))
        peft.inject_adapter_in_model(config, self.network)
        self.parameters = in_float32(self.network)

    def loss(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, conds: dict) -> torch.Tensor:
        shaped = sigma.view(-1, 1, 1, 1)
        x_t = ((1 - shaped) * x0 + shaped * noise).to(self.case.dtype)
        velocity = self.network(x_t, sigma.to(self.case.dtype), **conds)
        return (velocity.float() - (noise - x0)).square().mean()

    def batch(self, chosen: list[int]) -> tuple[torch.Tensor, dict]:
        first, *others = (self.samples[i] for i in chosen)
        conds = {name: c.concat([other.conds[name] for other in others]) for name, c in first.conds.items()}
        conds = module("host.encode").copied(conds, self.case.dtype)
        return torch.cat([first.x0, *(other.x0 for other in others)]), {"context": conds.pop("c_crossattn"), **conds}

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        layers, autograd = module("host.layers"), module("host.autograd")

        def recomputed(forward):
            return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)

        blocks = layers.blocks(self.network) if self.case.recomputed else []
        with contextlib.ExitStack() as stack:
            stack.enter_context(module("host.compat").training_mode())
            stack.enter_context(module("host.attention").differentiable())
            stack.enter_context(autograd.out_of_place_updates())
            stack.enter_context(layers.replaced_forwards({block: recomputed(block.forward) for block in blocks}))
            yield

    def run(self, steps: int, on_step: OnStep) -> None:
        with self.prepared():
            optimize(self.loss, self.batch, self.parameters, len(self.samples), self.case, steps, on_step)


class Diffusers:
    """The same by hand on diffusers' FluxTransformer2DModel, with the adapter that it adds itself. The weights are random."""

    TARGETS = (
        r".*transformer_blocks\.\d+\.(attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out)"
        r"|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
    )

    def __init__(self, case: Case, pack: Pack):
        import diffusers
        import peft

        verbosity = diffusers.logging.get_verbosity()
        diffusers.logging.set_verbosity_error()  # it doubts weights in bf16
        double, single = case.depth
        torch.manual_seed(0)
        self.case, self.samples = case, pack.samples
        self.network = diffusers.FluxTransformer2DModel(
            in_channels=64, num_layers=double, num_single_layers=single, attention_head_dim=HEAD,
            num_attention_heads=case.hidden // HEAD, joint_attention_dim=case.kind.width,
            pooled_projection_dim=case.kind.width, guidance_embeds=True,
        ).to(case.dtype)  # fmt: skip
        diffusers.logging.set_verbosity(verbosity)
        self.network.requires_grad_(False)
        self.network.add_adapter(peft.LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=self.TARGETS))
        self.parameters = in_float32(self.network)
        if case.recomputed:
            self.network.enable_gradient_checkpointing()

    def loss(self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, conds: dict) -> torch.Tensor:
        x0, noise = tokens(x0), tokens(noise)
        shaped = sigma.view(-1, 1, 1)
        x_t = ((1 - shaped) * x0 + shaped * noise).to(self.case.dtype)
        images = torch.cat([x_t, *conds["references"]], dim=1)
        velocity = self.network(images, timestep=sigma.to(self.case.dtype), return_dict=False, **conds["given"])[0]
        return (velocity[:, : x0.shape[1]].float() - (noise - x0)).square().mean()

    def batch(self, chosen: list[int]) -> tuple[torch.Tensor, dict]:
        samples, dtype = [self.samples[i] for i in chosen], self.case.dtype
        latents = torch.cat([sample.latent for sample in samples])
        texts, options = zip(*(sample.conditioning[0] for sample in samples))
        height, width = (side // 2 for side in latents.shape[-2:])
        ids = [torch.cartesian_prod(torch.tensor([float(i)]), torch.arange(float(height)), torch.arange(float(width)))
               for i in range(1 + self.case.references)]  # fmt: skip
        references = zip(*(option.get("reference_latents", ()) for option in options))
        given = dict(
            encoder_hidden_states=torch.cat(texts).to(dtype),
            pooled_projections=torch.cat([option["pooled_output"] for option in options]).to(dtype),
            guidance=torch.ones(len(chosen)), img_ids=torch.cat(ids), txt_ids=torch.zeros(TEXT, 3),
        )  # fmt: skip
        return latents, {"references": [tokens(torch.cat(of)).to(dtype) for of in references], "given": given}

    def run(self, steps: int, on_step: OnStep) -> None:
        optimize(self.loss, self.batch, self.parameters, len(self.samples), self.case, steps, on_step)


class Native:
    """ComfyUI's TrainLoraNode, with its own recomputing: without that it cannot train Flux."""

    def __init__(self, case: Case, pack: Pack):
        import comfy_extras.nodes_train

        self.nodes, self.case, self.samples = comfy_extras.nodes_train, case, pack.samples
        self.model = zoo.model(case.kind, case.dtype)
        self.reads_it_again = "force_deepcopy" in inspect.signature(self.model.clone).parameters
        if self.reads_it_again:  # in newer hosts, from the file that a loader had it from
            self.model.cached_patcher_init = (lambda **_: zoo.model(case.kind, case.dtype), ())

    @staticmethod
    def is_there() -> bool:
        with contextlib.suppress(ImportError):
            import comfy_extras.nodes_train

            return hasattr(comfy_extras.nodes_train, "TrainLoraNode")
        return False

    def run(self, steps: int, on_step: OnStep) -> None:
        import comfy.utils

        class Bar:
            def __init__(self, total: int):
                pass

            def update(self, n: int) -> None:
                on_step()

        name = {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.case.dtype]
        asked = dict(
            model=self.model, batch_size=self.case.batch, steps=steps, learning_rate=LEARNING_RATE, rank=self.case.rank,
            training_dtype=name, lora_dtype="fp32", gradient_checkpointing=True,
        )  # fmt: skip
        inputs = self.nodes.TrainLoraNode.define_schema().inputs
        values = {i.id: [asked.get(i.id, getattr(i, "default", None))] for i in inputs}
        values["latents"] = [{"samples": sample.latent} for sample in self.samples]
        values["positive"] = [sample.conditioning for sample in self.samples]
        bar, shown = self.nodes.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED
        self.nodes.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED = Bar, False
        try:
            self.nodes.TrainLoraNode.execute(**values)
        finally:
            self.nodes.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED = bar, shown
            comfy.model_management.unload_all_models()


def optimize(loss_of, batch_of, parameters, samples: int, case: Case, steps: int, on_step: OnStep) -> None:
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE)
    for step in range(steps):
        x0, conds = batch_of([(step * case.batch + i) % samples for i in range(case.batch)])
        sigma = torch.randn(case.batch).sigmoid()
        loss = loss_of(x0, torch.randn_like(x0), sigma, conds)
        loss.backward()
        loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        on_step()


def in_float32(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that are trained."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for p in trained:
        p.data = p.data.float()
    return trained


def tokens(latent: torch.Tensor) -> torch.Tensor:
    """(n, channels, height, width) as (n, height * width / 4, channels * 4), as diffusers packs it."""
    return torch.nn.functional.pixel_unshuffle(latent, 2).flatten(2).transpose(1, 2)
