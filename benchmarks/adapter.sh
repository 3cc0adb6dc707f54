#!/bin/sh
# The training run of an adapter to ship (the present one is older): benchmarks/adapter.sh DATA OUT.safetensors [STEPS]
# DATA: the folder of prompt corpora. Sentiment, entailment and paraphrase are what remask is
# benchmarked on, so they are left out; 120 further tasks with conversations only measure.
set -eu
exec remask adapt --data "$1" --out "$2" --from fresh --steps "${3:-720}" --rate 1.5e-3 --seed 0 \
  --held-out 120 --measure-every 250 --leave-out 'sentiment|polarity|emotion|entail|hypothes|premise|paraphras|semantically|same meaning|\bnli\b|mrpc|\bqqp\b|snli|mnli|\bsst\b|imdb|yelp|positive or negative|negative or positive'
