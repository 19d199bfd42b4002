"""Prompts: wording, the authors' files, chat rendering, conversations."""
