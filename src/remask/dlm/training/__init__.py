"""Turning an autoregressive model into a diffusion model for prompts: `remask adapt`.

`corpus` reads prompts and their conversations, `corrupt` masks them, `batches` lays them out as the
denoiser will read them, `student` holds what is trained, `loop` trains it and can be killed,
`measure` says how well held-out prompts are filled.
"""
