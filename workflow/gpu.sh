#!/usr/bin/env bash
# workflow/gpu.sh COMMAND ...: run a command on a GPU that no other job of this user has on this machine; wait for one if need be.
#
# The GPUs are those of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists. One is taken by a lock (flock) on a file that stands
# for it. The command inherits the open file, so that the system itself frees the GPU when the command has ended, killed or not.
# A notebook's kernel does not inherit it and notices within a second that papermill has gone: a GPU just taken is let rest so long.
set -euo pipefail

if [[ -z ${CUDA_VISIBLE_DEVICES+set} ]]; then
  listed=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null) || listed=
  CUDA_VISIBLE_DEVICES=${listed//$'\n'/,}
fi
IFS=, read -ra devices <<< "${CUDA_VISIBLE_DEVICES//[[:space:]]/}"
if (( ${#devices[@]} == 0 )); then
  echo "workflow/gpu.sh: no GPU here (nvidia-smi lists none, or CUDA_VISIBLE_DEVICES is empty); start snakemake without" \
    "--resources gpu=N to run on the CPU" >&2
  exit 1
fi

locks=${TMPDIR:-/tmp}/saliency-gpus-$(id -u)
mkdir -p -m 700 "$locks"
if [[ ! -O $locks || -L $locks ]]; then
  echo "workflow/gpu.sh: $locks belongs to somebody else; set TMPDIR to a folder of yours" >&2
  exit 1
fi

said=
while true; do
  for device in "${devices[@]}"; do
    exec {lock}> "$locks/${device//\//_}"
    if flock --nonblock "$lock"; then
      export CUDA_VISIBLE_DEVICES=$device
      sleep 2
      exec "$@"
    fi
    exec {lock}>&-
  done
  [[ $said ]] || echo "workflow/gpu.sh: all of GPU ${devices[*]} are taken; waiting for one" >&2
  said=yes
  sleep 1
done
