#!/usr/bin/env bash
# workflow/submit.sh JOBSCRIPT: the queue of one machine for Snakemake's cluster-generic. Start the job in the background and print
# its number. Its folder has its output (log), its exit status (code), and a lock that it holds while it runs.
set -euo pipefail

mkdir -p .snakemake/queue
job=$(mktemp -d .snakemake/queue/XXXXXXXX)
exec 9> "$job/lock"
flock 9  # the job inherits it and holds it until its last process has ended
setsid bash -c 'echo $$ > "$1/group"; bash "$2"; echo $? > "$1/code"' job "$job" "$1" > "$job/log" 2>&1 < /dev/null &
basename "$job"
