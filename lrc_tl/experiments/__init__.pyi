from .result import ProtocolResult as ProtocolResult
from .run import run_protocol as run_protocol
