#!/usr/bin/env bash
# workflow/submit.sh JOBSCRIPT: the queue of one machine, as Snakemake's cluster-generic wants it. Starts the job in the
# background and prints its number; its folder holds the output (log), how it ended (code), and a lock that it keeps while it runs.
set -euo pipefail

mkdir -p .snakemake/queue
job=$(mktemp -d .snakemake/queue/XXXXXXXX)
exec 9> "$job/lock"
flock 9  # inherited by the job: held until all of it has ended, however it ended
setsid bash -c 'echo $$ > "$1/group"; bash "$2"; echo $? > "$1/code"' job "$job" "$1" > "$job/log" 2>&1 < /dev/null &
basename "$job"
