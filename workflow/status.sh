#!/usr/bin/env bash
# workflow/status.sh NUMBER: print whether a job of workflow/submit.sh is running, has succeeded or has failed.
job=.snakemake/queue/$1
if [[ ! -d $job ]]; then
  echo failed
elif ! flock --nonblock "$job/lock" true; then
  echo running
elif [[ $(cat "$job/code" 2>/dev/null) == 0 ]]; then
  echo success
else
  echo failed  # or killed, so that it could not record how it ended
fi
