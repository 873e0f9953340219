from .embedding import LinearRelationalEmbedding as LinearRelationalEmbedding
from .fit_settings import LowRank as LowRank
from .jacobian import SubjectObjectJacobian as SubjectObjectJacobian
from .jacobian import subject_object_jacobian as subject_object_jacobian
from .jacobian import subject_object_jacobians as subject_object_jacobians
from .layer_grid import fit_layer_grid as fit_layer_grid
from .subject_statistics import LayerStatistics as LayerStatistics
from .subject_statistics import SubjectStatistics as SubjectStatistics
