"""The benchmarks of remask. docs/results/benchmarks.md lists them with commands and results.

search: optimisers compared under one budget of calls; tasks and optimisers are what it runs.
acceptance: rules that accept an edit, and what single edits are worth. denoiser: speed, fills and
training of the diffusion model. Each runs as a module from the checkout, such as
`python -m benchmarks.search --help`, and writes its figures to benchmarks/results with the command,
the commit and the machine that made them. `--page` rewrites a page from the committed results.
"""
