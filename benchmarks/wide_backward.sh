#!/bin/sh
# The wide schedule, backward, beside what ran before: each tiling against float64, then the phases of a step. Of a GPU of sm_90a; some
# six minutes. From the repository's root: sh benchmarks/wide_backward.sh [python]
python=${1:-python}
tilings() { "$python" benchmarks/tilings.py --seq 48 "$@"; }
wide() { size=$1 batch=$2; shift 2; tilings --schedule wide_backward --size "$size" --batch "$batch" $(printf ' --tiling %s' "$@"); }

wide 4x512 256 8/64/2/7/2/1 8/64/2/7/2/0 8/64/2/7/4/1
wide 1x512 256 8/16/2/8/2/1 8/16/2/8/2/0 8/16/2/4/2/1 8/16/2/8/4/1 16/32/2/8/2/1 8/32/2/8/2/1
wide 1x512 128 8/16/2/8/2/1 8/16/2/8/4/1 16/16/1/4/2/1 16/32/2/8/2/1
wide 1x512 512 8/32/2/8/2/1 8/32/2/8/4/1 8/64/2/7/2/1
wide 4x256 256 4/32/2/16/2/1 4/32/2/8/2/1 4/32/4/16/2/1 4/32/2/16/4/1
tilings --schedule streaming_backward --size 1x512 --batch 256 --top 1
tilings --schedule cluster_backward --size 4x256 --batch 256 --top 1

profile() { "$python" benchmarks/tilings.py --schedule wide_backward --seq 8 --profile "$@"; }
profile --size 4x512 --batch 256 --tiling 8/64/2/7/2/1
profile --size 1x512 --batch 256 --tiling 8/16/2/8/2/1
