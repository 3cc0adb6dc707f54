"""Train an adapter that turns an autoregressive model into a diffusion model for prompts.

This is the work of `remask adapt`. `corpus` reads prompts with their conversations, `masking` draws
the masks, `batches` builds the same input that a denoiser reads, `student` holds the trained
parameters, `train` has the training loop, `held_out` measures the loss on held-out prompts, and
`recipe` runs all of them.
"""
