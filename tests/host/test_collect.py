"""Samples that the graph's own nodes have conditioned."""
import pytest
import torch


@pytest.fixture
def collect(trainer):
    return trainer("host.collect").collect


def by_hand(zoo, kind, seed):
    """The conditioning and target of a sample, by the nodes that a user of FLUX.1 Kontext wires."""
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxGuidance

    import nodes as comfy_nodes

    clip, vae = zoo.Clip(kind), zoo.Vae(kind)
    reference, target = (torch.from_numpy(zoo.picture(s))[None] for s in (100 * seed, seed))
    text = comfy_nodes.CLIPTextEncode().encode(clip, f"caption {seed}")[0]
    latent = comfy_nodes.VAEEncode().encode(vae, reference)[0]
    conditioning = FluxGuidance.execute(ReferenceLatent.execute(text, latent).args[0], 1.0).args[0]
    return conditioning, comfy_nodes.VAEEncode().encode(vae, target)[0]


def test_a_family_trained_both_ways_gives_the_same_gradients(zoo, trainer, collect):
    import tiny

    kind, loop, condition = zoo.KINDS[0], trainer("loop"), trainer("host.forward").condition
    with torch.inference_mode():
        model = zoo.model(kind)
        own = [zoo.encoded(kind, i, 1) for i in (1, 2, 3)]
        collected = collect(*map(list, zip(*(by_hand(zoo, kind, i) for i in (1, 2, 3))))).samples
        gradients, loras = [], []
        for samples in (own, collected):
            conditioned = [condition(model, sample) for sample in samples]
            gradients.append(tiny.Training(model).gradient(conditioned, *tiny.draws(conditioned)))
            loras.append(loop.train(model, samples, loop.Settings(2, 2, 0), 3, 1e-3))
    assert gradients[0].abs().sum() > 0 and torch.equal(*gradients)
    assert all(torch.equal(loras[0][key], loras[1][key]) for key in loras[0])


def test_one_conditioning_serves_for_all(zoo, collect):
    kind = zoo.KINDS[0]
    conditioning, latent = by_hand(zoo, kind, 1)
    dataset = collect([conditioning], [latent, by_hand(zoo, kind, 2)[1]])
    assert [sample.name for sample in dataset.samples] == ["sample 1", "sample 2"]
    assert torch.equal(dataset.samples[0].conditioning[0][0], dataset.samples[1].conditioning[0][0])


def test_the_fingerprint_is_of_the_content(zoo, collect):
    kind = zoo.KINDS[0]

    def fingerprint(change=None):
        conditioning, latent = by_hand(zoo, kind, 1)
        if change:
            change(conditioning, latent)
        return collect([conditioning], [latent]).fingerprint

    same = fingerprint()
    assert fingerprint() == same
    for change in (
        lambda conditioning, latent: latent["samples"].add_(1e-3),
        lambda conditioning, latent: conditioning[0][0].add_(1e-3),
        lambda conditioning, latent: conditioning[0][1]["reference_latents"][0].add_(1e-3),
        lambda conditioning, latent: conditioning[0][1].update(guidance=2.0),
    ):
        assert fingerprint(change) != same


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c, l: c.append(c[0]), "2 conditionings and 1 latent;"),
        (lambda c, l: (c.clear(), l.clear()), "no samples to collect"),
        (lambda c, l: l[0].update(samples=l[0]["samples"].repeat(2, 1, 1, 1)), "sample 1 holds 2 images"),
        (lambda c, l: l[0].update(noise_mask=torch.ones(1, 8, 8)), "sample 1 has a mask"),
        (lambda c, l: c[0].append(c[0][0]), "sample 1 has 2 parts"),
        (lambda c, l: c[0][0][1].update(control=object()), "sample 1 has 'control'"),
        (lambda c, l: c[0][0][1].update(mask=torch.ones(1, 8, 8)), "sample 1 has 'mask'"),
    ],
    ids=["lengths", "nothing", "batch", "noise mask", "combined", "control", "mask"],
)  # fmt: skip
def test_what_training_would_ignore_is_refused(zoo, collect, change, message):
    conditioning, latent = by_hand(zoo, zoo.KINDS[0], 1)
    conditionings, latents = [conditioning], [latent]
    change(conditionings, latents)
    with pytest.raises(ValueError, match=message):
        collect(conditionings, latents)
