#!/usr/bin/env bash
# workflow/status.sh NUMBER: prints whether a job of workflow/submit.sh is running, was a success or failed.
job=.snakemake/queue/$1
if [[ ! -d $job ]]; then
  echo failed
elif ! flock --nonblock "$job/lock" true; then
  echo running
elif [[ $(cat "$job/code" 2>/dev/null) == 0 ]]; then
  echo success
else
  echo failed  # also a killed one, which could not say how it ended
fi
