from .low_rank import numerical_rank as numerical_rank
from .low_rank import solve_low_rank as solve_low_rank
