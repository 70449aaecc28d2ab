"""From the text that a policy's chat template wrote back to its messages: pure Python, no tokenizer."""

from reward_service.reparsing.dialogue import Dialogue, Message, Response
from reward_service.reparsing.reparse import KNOWN_TEMPLATES, is_rendered, reparse
from reward_service.reparsing.responses import answered, response_of, without_end
from reward_service.reparsing.words import prompt_of_words

__all__ = [
    "KNOWN_TEMPLATES",
    "Dialogue",
    "Message",
    "Response",
    "answered",
    "is_rendered",
    "prompt_of_words",
    "reparse",
    "response_of",
    "without_end",
]
