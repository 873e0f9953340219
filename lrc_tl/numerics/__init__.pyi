from .contrasts import held_out_separation as held_out_separation
from .contrasts import pair_agreement as pair_agreement
from .contrasts import principal_difference as principal_difference
from .low_rank import numerical_rank as numerical_rank
from .low_rank import solve_low_rank as solve_low_rank
from .product_rate import product_rate as product_rate
