"""Diffusion language models that fill the holes of a prompt, given traces of its use.

Import the module that you need, such as `build`, `infill_api` or `chat_denoiser`. This file imports
nothing, so that torch loads only where it is used. Token ids stay inside this package. It does not
use scores, targets or the search.
"""
