#!/usr/bin/env bash
# workflow/cancel.sh NUMBER ...: end jobs of workflow/submit.sh with all processes that they have started.
for number; do
  [[ -d .snakemake/queue/$number ]] || { echo "workflow/cancel.sh: there is no job $number" >&2; continue; }
  for _ in {1..20}; do [[ -s .snakemake/queue/$number/group ]] && break; sleep 0.1; done  # a job that was just submitted
  job=.snakemake/queue/$number
  # a job that has ended is not touched: the system may have reused the number of its process group
  flock --nonblock "$job/lock" true || kill -- "-$(cat "$job/group")"
done
