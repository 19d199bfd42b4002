"""Prompts: wording, the authors' files, chat rendering, and which part of a chat is scored."""

from flipfast.prompts.conversation import (
    completion_text,
    final_answer,
    split_messages,
    split_query,
    split_system,
)
from flipfast.prompts.templates import PromptTemplate, get_template

__all__ = [
    "PromptTemplate",
    "completion_text",
    "final_answer",
    "get_template",
    "split_messages",
    "split_query",
    "split_system",
]
