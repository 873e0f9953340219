from .baselines import baseline_concepts as baseline_concepts
from .baselines import fit_baselines as fit_baselines
from .baselines import mean_concepts as mean_concepts
from .fitting import fit_concepts as fit_concepts
from .method import METHODS as METHODS
from .method import Method as Method
from .method import require_methods as require_methods
from .settings import FitSettings as FitSettings
