"""Torch language models with explicit attention masks and reusable keys and values.

The base of the built-in denoiser is also the built-in target, so both `dlm` and `models` use this
package. Import `builtin_weights` or `transformer` only where torch may be loaded: this file imports
nothing.
"""
