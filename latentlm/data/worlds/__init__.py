"""Generated sets for reversal and its neighbours: deterministic in their fields, made of invented words."""

from latentlm.data.worlds.binding import Binding
from latentlm.data.worlds.chain import Chain
from latentlm.data.worlds.family import Family
from latentlm.data.worlds.identity_bridge import IdentityBridge
from latentlm.data.worlds.retrieval import Retrieval
from latentlm.data.worlds.star_graph import StarGraph

__all__ = ["Binding", "Chain", "Family", "IdentityBridge", "Retrieval", "StarGraph"]
