"""Turning an autoregressive model into a diffusion model for prompts: `remask adapt`.

`corpus` reads prompts and their conversations, `masking` masks them, `batches` lays them out as the
denoiser will read them, `student` holds what is trained, `train` trains it and can be killed,
`held_out` says how well held-out prompts are filled, `recipe` is the whole of it.
"""
