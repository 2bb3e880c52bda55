#!/usr/bin/env bash
# workflow/gpu.sh COMMAND ...: run a command on a GPU that no other job of this user has on this machine, and wait for one if needed.
#
# The GPUs are those of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists. A lock (flock) on a file reserves a GPU. The command
# inherits the open file, so the system releases the GPU when the command has ended, also if it was killed. A notebook's kernel does
# not inherit the file; it ends within a second after papermill, so the next job waits for two seconds before it starts.
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
  echo "workflow/gpu.sh: $locks belongs to another user; set TMPDIR to one of your folders" >&2
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
