from .fingerprint import ModelFingerprint as ModelFingerprint
from .loading import HookedModel as HookedModel
from .loading import hook_name as hook_name
from .loading import load_model as load_model
from .loading import require_hook as require_hook
