"""Torch language models with explicit attention masks and reusable keys and values.

`dlm` and `target` share this room, because the base of the embedded denoiser is at the same time
the embedded target. Import `remask.backbone.weights` or `.model` only where torch may be loaded:
this file itself loads nothing. Knows nothing of prompts, traces and scores.
"""
