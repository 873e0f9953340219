"""How the property tests draw: the same examples in every run, or many new ones when asked to.

`HYPOTHESIS_PROFILE=long pytest tests -k properties` draws a thousand new examples for each law.
"""

import os

from hypothesis import HealthCheck, settings

# Machines are busy and caches of tokenizers cold, so no test goes by the clock; nothing is kept between runs.
_SHARED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("same", max_examples=60, derandomize=True, **_SHARED)
settings.register_profile("long", max_examples=1000, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
