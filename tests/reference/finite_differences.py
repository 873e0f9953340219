"""Fourth-order central differences of the object along given directions of the subject's residual."""

import torch


def object_after_replacing(model, tokens, subject, *, subject_layer, object_layer, n_positions):
    """The mean of the first `n_positions` object positions when the subject's residual is replaced."""
    kept = []

    def replace(residual, hook):
        residual = residual.clone()
        residual[0, tokens.subject_position] = subject
        return residual

    def keep(residual, hook):
        kept.append(residual[0].clone())

    hooks = [
        (f"blocks.{subject_layer}.hook_resid_post", replace),
        (f"blocks.{object_layer}.hook_resid_post", keep),
    ]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        model(torch.tensor([tokens.input_ids]))
    return kept[0][list(tokens.object_positions)[:n_positions]].mean(0)


def central_differences(model, tokens, subject, directions, *, subject_layer, object_layer, n_positions, step):
    """(d object / d subject) times each row of `directions`, as columns.

    The step must suit the precision that the model really computes in.
    """
    where = {"subject_layer": subject_layer, "object_layer": object_layer, "n_positions": n_positions}
    columns = []
    for axis in directions:
        values = {
            n: object_after_replacing(model, tokens, subject + n * step * axis, **where) for n in (-2, -1, 1, 2)
        }
        columns.append((8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step))
    return torch.stack(columns, dim=1)
