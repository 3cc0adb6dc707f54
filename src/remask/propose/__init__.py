"""Turn traces into candidate prompts: choose traces, mask the prompt, fill it, check the result.

    traces ─► select_traces ─► maskers ─► the denoiser fills ─► edits ─► guard ─► proposals

This room works on prompts, traces and the protocol of a denoiser. It does not call targets.
"""
