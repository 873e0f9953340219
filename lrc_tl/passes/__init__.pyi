from .activations import PromptActivations as PromptActivations
from .activations import object_activations as object_activations
from .activations import prompt_activations as prompt_activations
from .activations import subject_activations as subject_activations
from .chunk import Chunk as Chunk
from .known_prompts import DroppedPrompt as DroppedPrompt
from .known_prompts import KnownPrompts as KnownPrompts
from .known_prompts import filter_known as filter_known
