"""What is on a model that a plain one has not."""

_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
_GENERATORS = ("generate", "generate_stream", "hf_generate")
_METHODS = (*_GENERATORS, "forward", "act_fn", "apply_rotary", "calculate_attention_scores", "calculate_z_scores")


def left_on(model):
    """Hooks, watches and flags of the modules, methods of ours on them, and methods of ours on the class."""
    found = {}
    for name, module in model.named_modules():
        kept = [number for number, hook in module._forward_pre_hooks.items() if _of_the_bridge(hook)]
        for kind in _KINDS:
            if numbers := set(getattr(module, kind)) - set(kept):
                found[name, kind] = numbers
        for kind in ("fwd_hooks", "bwd_hooks"):
            if module.__dict__.get(kind):
                found[name, kind] = len(module.__dict__[kind])
        for kind in _METHODS:
            if type(module.__dict__.get(kind)).__module__.startswith("lrc_tl"):
                found[name, kind] = "replaced"
    for cls in type(model).__mro__:
        for kind in _GENERATORS:
            if hasattr(vars(cls).get(kind), "_lrc_tl_original"):
                found[cls.__name__, kind] = "followed"
    return found


def _of_the_bridge(hook):
    """The Bridge puts some of its own on at the first pass."""
    return "_maybe_wire_capture_hooks" in getattr(hook, "__qualname__", "")
