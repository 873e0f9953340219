"""The attribute lens: what an LRE makes of every hidden state of a prompt, in words."""

from collections.abc import Sequence

from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.prompt_lens import PromptLens, read_prompt
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.models.chat import Text
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.precision import wide_of


@numbers_checked
def attribute_lens(
    model: HookedModel,
    lre: LinearRelationalEmbedding,
    text: Text,
    *,
    k: int = 3,
    layers: Sequence[int] | None = None,
    lre_beta: float = 1.0,
    progress: bool = True,
) -> PromptLens:
    """The `k` top words of `lre_beta W h + b`, for the residual `h` behind every layer at every token.

    Final norm and unembedding follow, so that an LRE to the last layer and the object's first token (as in the
    paper) says what the relation makes of `h`, whatever the model is about to say; an LRE to an earlier layer is
    read as the logit lens reads that layer. Set beside `lrc_tl.directions.logit_lens` of the same text, it shows
    what a distracting prompt hides. `lre_beta` is the paper's scale of W. Hernandez et al. 2023
    (arXiv:2308.09124), section 5.

    Raises:
        FingerprintMismatch: the LRE was fitted on another model.
        ModelError: the model has no final norm and unembedding.
        ValueError: an empty text or one that fills the context, a layer outside the model, `k` outside 1 to the
            size of the vocabulary, residuals that are not finite, or a model without a tokenizer.
    """
    lre.require_model(model)

    def moved(acts: Tensor, layer: int) -> Tensor:
        weight, bias = lre.weight.to(acts.device), lre.bias.to(acts.device)
        objects: Tensor = lre_beta * (wide_of(acts).to(weight) @ weight.T) + bias
        return objects

    label = f"attribute lens of {lre.relation!r} ({lre.subject_layer} to {lre.object_layer})"
    return read_prompt(model, text, k=k, layers=layers, label=label, moved=moved, progress=progress)
