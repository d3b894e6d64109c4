#!/bin/sh
# The wide schedule, backward, on a GPU of sm_90a, each tiling against float64. From the repository's root:
#
#     sh benchmarks/wide_backward.sh sizes [python]    beside what ran before; some five minutes
#     sh benchmarks/wide_backward.sh phases [python]   where a step's clocks go; some two minutes
#     sh benchmarks/wide_backward.sh more [python]     other sizes and cells; some three minutes
part=${1:?sizes, phases or more} python=${2:-python}
tilings() { "$python" benchmarks/tilings.py --schedule wide_backward "$@"; }
wide() { size=$1 batch=$2; shift 2; tilings --seq 48 --size "$size" --batch "$batch" $(printf ' --tiling %s' "$@"); }

case $part in
sizes)
    wide 4x512 256 8/64/2/7/2/1 8/64/2/7/2/0 8/64/2/7/4/1
    wide 1x512 256 8/16/2/8/2/1 8/16/2/8/2/0 8/16/2/4/2/1 8/16/2/8/4/1 16/32/2/8/2/1 8/32/2/8/2/1
    wide 1x512 128 8/16/2/8/2/1 8/16/2/8/4/1 16/16/1/4/2/1 16/32/2/8/2/1
    wide 1x512 512 8/32/2/8/2/1 8/32/2/8/4/1 8/32/4/5/2/1 8/64/2/7/2/1
    wide 4x256 256 4/32/2/16/2/1 4/32/2/8/2/1 4/32/4/10/2/1 4/32/2/16/4/1
    "$python" benchmarks/tilings.py --schedule streaming_backward --seq 48 --size 1x512 --batch 256 --top 1
    "$python" benchmarks/tilings.py --schedule cluster_backward --seq 48 --size 4x256 --batch 256 --top 1
    ;;
phases)
    tilings --seq 8 --profile --size 4x512 --batch 256 --tiling 8/64/2/7/2/1
    tilings --seq 8 --profile --size 1x512 --batch 256 --tiling 8/16/2/8/2/1
    ;;
more)
    wide 1x512 64 16/16/1/4/2/1 8/16/2/8/2/1
    wide 1x768 64 24/16/1/2/2/1
    wide 1x768 128 24/32/2/5/2/1
    wide 1x1024 64 32/16/1/2/2/1
    tilings --seq 48 --cell gru --size 1x512 --batch 256 --tiling 8/16/2/8/2/1
    tilings --seq 48 --cell slstm --size 1x512 --batch 256 --tiling 8/16/2/8/2/1
    ;;
esac
