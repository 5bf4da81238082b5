"""What a node gets is checked against its own schema before it runs: ComfyUI checks what is typed, not what is linked."""
import functools
import inspect

from comfy_api.latest import io

MISSING = {  # in ComfyUI's own words
    io.Model: "If the model is from a checkpoint loader node your checkpoint does not contain a valid diffusion model.",
    io.Clip: "If the clip is from a checkpoint loader node your checkpoint does not contain a valid clip or text encoder model.",
    io.Vae: "If the VAE is from a checkpoint loader node your checkpoint does not contain a valid VAE.",
}


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, whose execute raises ValueError that names the input, its value and its limits. As in ComfyUI, choices
    that validate_inputs asks for are the node's own matter; so are a CLIP and a VAE, which not every dataset needs."""
    execute, own = node.execute.__func__, inspect.signature(node.validate_inputs).parameters

    @functools.wraps(execute)
    def checked_execute(cls, **values):
        schema = cls.define_schema()
        for given in schema.inputs:
            if given.id not in values or isinstance(given, (io.Clip.Input, io.Vae.Input)):
                continue
            several = schema.is_input_list and isinstance(values[given.id], list)
            found = [
                None if value is None and given.optional else _value(schema.display_name, given, value, own)
                for value in (values[given.id] if several else [values[given.id]])
            ]
            values[given.id] = found if several else found[0]
        return execute(cls, **values)

    node.execute = classmethod(checked_execute)
    return node


def require(name: str, kind, value) -> None:
    """Raise ValueError when a MODEL, CLIP or VAE is None, or a VAE without weights."""
    if value is None or getattr(value, "first_stage_model", value) is None:
        raise ValueError(f"{name} input is invalid: None\n\n{MISSING[kind]}")


def _value(node: str, given: io.Input, value, own):
    """``value`` as what the input takes: 8 for 8.0."""
    try:
        if isinstance(given, io.Int.Input):
            number = int(value)
            if not isinstance(value, str) and number != value:
                raise ValueError
            return _within(given, number)
        if isinstance(given, io.Float.Input):
            return _within(given, float(value))
    except (TypeError, ValueError, OverflowError):
        limits = [f"{word} {limit}" for word, limit in (("at least", given.min), ("at most", given.max)) if limit is not None]
        kind = "a whole number" if isinstance(given, io.Int.Input) else "a number"
        raise ValueError(f"{node}: {given.id} is {value!r}, but must be {kind}, {' and '.join(limits)}.") from None
    if isinstance(given, io.Combo.Input) and given.id not in own and value not in given.options:
        raise ValueError(f"{node}: {given.id} is {value!r}, but must be one of {', '.join(map(repr, given.options))}.")
    if isinstance(given, io.String.Input) and not isinstance(value, str):
        raise ValueError(f"{node}: {given.id} is {value!r}, but must be a text.")
    if isinstance(given, io.Model.Input):
        require(given.id, io.Model, value)
    if value is None:
        raise ValueError(f"{node}: {given.id} is None. Look at the node that it is linked to.")
    return value


def _within(given, number):
    if (given.min is None or given.min <= number) and (given.max is None or number <= given.max):
        return number
    raise ValueError
