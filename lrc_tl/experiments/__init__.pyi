from .method_outcome import CurvePoint as CurvePoint
from .method_outcome import MethodOutcome as MethodOutcome
from .method_outcome import SideEffectMeans as SideEffectMeans
from .record import LeftOutRelation as LeftOutRelation
from .record import RelationRecord as RelationRecord
from .result import ProtocolResult as ProtocolResult
from .run import run_protocol as run_protocol
from .settings import ExperimentSettings as ExperimentSettings
