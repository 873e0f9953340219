"""The Jacobian by plain Hugging Face autograd: the whole sequence, no cache, one row at a time in a loop.

Knows nothing of TransformerLens or lrc_tl. `transformers` only.
"""

import torch


def subject_object_jacobian(
    hf_model, ids, subject_position, *, subject_layer, object_layer, object_positions, rows=None, layers=None
):
    """(J, subject, object): layers are indices into the model's list of decoder layers, after which it reads."""
    layers = hf_model.model.layers if layers is None else layers
    taken = {}

    def replace(module, args, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        leaf = hidden[0, subject_position].detach().clone().requires_grad_(True)
        taken["subject"] = leaf
        hidden = hidden.detach().clone()
        hidden[0, subject_position] = leaf
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    def read(module, args, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        taken["object"] = hidden[0, list(object_positions)].mean(0)

    handles = [
        layers[subject_layer].register_forward_hook(replace),
        layers[object_layer].register_forward_hook(read),
    ]
    try:
        with torch.enable_grad():
            hf_model.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    subject, object_ = taken["subject"], taken["object"]
    wanted = range(len(object_)) if rows is None else rows
    jacobian = torch.stack([torch.autograd.grad(object_[row], subject, retain_graph=True)[0] for row in wanted])
    return jacobian, subject.detach(), object_.detach()
