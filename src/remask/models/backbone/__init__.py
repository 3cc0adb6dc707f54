"""Torch language models with explicit attention masks and reusable keys and values.

`dlm` and `target` share this room, because the base of the built-in denoiser is at the same time
the built-in target. Import `builtin_weights` or `transformer` only where torch may be loaded:
this file itself loads nothing. Knows nothing of prompts, traces and scores.
"""
