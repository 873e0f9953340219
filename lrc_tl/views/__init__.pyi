from .plots import plot_curves as plot_curves
from .plots import plot_relations as plot_relations
from .plots import plot_result as plot_result
from .plots import plot_sweep as plot_sweep
from .plots import save_plots as save_plots
