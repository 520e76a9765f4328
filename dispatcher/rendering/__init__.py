"""Facts into words: the only renderer, its languages, and the check of every template."""

from dispatcher.rendering.proof import EXAMPLES, check_packs
from dispatcher.rendering.renderer import Renderer
from dispatcher.rendering.statement import TEXT_SLOTS, Rendering, Statement, content_hash

__all__ = [
    "EXAMPLES",
    "TEXT_SLOTS",
    "Renderer",
    "Rendering",
    "Statement",
    "check_packs",
    "content_hash",
]
