"""Generated sets for reversal and its neighbours: deterministic in their fields, made of invented words."""

from latentlm.data.synthetic.binding import Binding
from latentlm.data.synthetic.chain import Chain
from latentlm.data.synthetic.family import Family
from latentlm.data.synthetic.identity_bridge import IdentityBridge
from latentlm.data.synthetic.retrieval import Retrieval
from latentlm.data.synthetic.star_graph import StarGraph

__all__ = ["Binding", "Chain", "Family", "IdentityBridge", "Retrieval", "StarGraph"]
