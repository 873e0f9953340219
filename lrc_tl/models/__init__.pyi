from .chat import chat_prompt as chat_prompt
from .chat import chat_text as chat_text
from .fingerprint import ModelFingerprint as ModelFingerprint
from .hooked_model import HookedModel as HookedModel
from .hooked_model import hook_name as hook_name
from .hooked_model import require_hook as require_hook
from .loading import load_model as load_model
from .token_metric import next_token_metric as next_token_metric
