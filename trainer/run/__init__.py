"""A run on disk: a training that is not lost, whatever happens, and not done twice.

A run lives in OUTPUT/pairlora/NAME-KEY and is known by its key, a hash of everything that it is trained from (job.py):
samples, captions, base model, settings, learning rate. The number of steps is not part of it. Layout 1:

    run.json                what it is made from, in words; the layout's number; the versions of ComfyUI that trained it
    metrics.jsonl           one JSON object a line: each step, held-out loss, preview; the last line about a step counts
    checkpoints/
        step000250.json     written last: checksums of the two beside it, and what else the state is
        step000250.safetensors          the LoRA, as any other
        step000250.state.safetensors    optimizer, random numbers, average
        best000200-1a2b3c4d.safetensors the LoRA that did best on held-out pairs up to a checkpoint, and its checksum
        lora000150-5e6f7a8b.safetensors the LoRA of a checkpoint that is no more, to compare with
        ...-of-1000.*       of a run of 1,000 steps that is being cooled down
    previews/               pictures of held-out pairs: step000250-1.png, and beside them pair-1-input.png, pair-1-target.png
    damaged/                checkpoints whose checksums were wrong
    step1000.safetensors    a finished LoRA, after so many steps; .best, .bf16 and .fp16 where asked for
    step1000.json           what became of it: the files in the loras folder, the report
    report.txt              the report as it was told last
    stop                    written by whoever wants the training to end with the LoRA so far,
    preview, copy           to make pictures now, or to put a copy of the LoRA so far into the loras folder
    copies.json             the names of those copies
    lock, holder.json       which ComfyUI is training it

Before layout 1 there was nothing but the finished LoRAs, which are still found.
"""
