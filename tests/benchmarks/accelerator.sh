#!/usr/bin/env bash
# What an accelerator is asked when one is at hand for ten minutes: is it right there, how fast, and
# what does the preset `balanced` learn?
#     tests/benchmarks/accelerator.sh RAW OUT [cuda|cpu] [MINUTES]
# RAW holds Dataset501_* (scans without labels) and Dataset506_* (labelled ones), as nnU-Net has
# them. OUT gets a file of each part as soon as the part ends, so that little is lost when the time is
# up; a part that fails is said and the next one begins. MINUTES are those of steps of each training.
# On a processor all is small: that shows that the script works, and nothing else.
set -uo pipefail

[ $# -ge 2 ] || { grep '^#  ' "$0" | head -1; exit 2; }
here=$(cd "$(dirname "$0")/../.." && pwd)
raw=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
device=${3:-cuda}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export nnUNet_raw=$raw nnUNet_preprocessed=$work/preprocessed nnUNet_results=$work/results
preset=(--preset balanced)
minutes=${4:-1.5}
detectors=(teacher teacher_filters experts)
if [ "$device" = cpu ]; then
    preset=(--preset cpu --width 8)
    minutes=${4:-0.1}
    detectors=(teacher_filters)
fi

part() {  # name, seconds at most, command
    local name=$1 seconds=$2 begun=$SECONDS code
    shift 2
    timeout --signal=TERM --kill-after=30 "$seconds" "$@" > "$work/$name.txt" 2>&1
    code=$?
    # Bars of progress rewrite their line.
    { echo "$*"; tr '\r' '\n' < "$work/$name.txt" | grep -v '%|' | tail -c 60000
      echo "exit code $code after $((SECONDS - begun)) s"; } > "$out/$name.txt"
    echo "$name: exit code $code after $((SECONDS - begun)) s"
}

part 1_machine 60 python -c "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability()); print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
[ "$device" = cpu ] || part 2_tests 150 python -m pytest -q -p no:cacheprovider "$here/tests/integration/test_cuda.py"
part 3_plan 150 screener_plan_and_preprocess -d 501 "${preset[@]}" --num_test 10 -o condition.kind=sincos \
    -o descriptor.loss=infonce -o density.max_scans=40
part 4_waiting 90 python "$here/tests/benchmarks/benchmark_waiting.py" 501 --device "$device" --steps 4 --stages descriptor
part 5_layout 60 python "$here/tests/benchmarks/benchmark_layout.py" 501 --repeats 2
part 6_detectors 400 screener_compare 501 -device "$device" --minutes "$minutes" --detectors "${detectors[@]}" -o "$work/detectors"
cp "$work"/detectors/detectors.md "$out/6_detectors.md" 2> /dev/null
part 7_starts 300 screener_compare 501 -device "$device" --minutes "$minutes" --starts scratch:probe descriptor:probe \
    -d 506 --num_cases 5 --folds 2 -o "$work/starts"
cp "$work"/starts/lowshot.md "$out/7_starts.md" 2> /dev/null
exit 0
