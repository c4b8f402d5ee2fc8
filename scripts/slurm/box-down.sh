#!/usr/bin/env bash
# Cancel the jobs of the SLURM that box-up.sh started in DIR, then stop its daemons by their process ids.
set -uo pipefail
box=$(realpath -m "${1:?usage: box-down.sh DIR}")
export SLURM_CONF=$box/slurm.conf

if timeout 5 scontrol ping >/dev/null 2>&1; then
  timeout 10 scancel --user="$(id -un)"
  for _ in $(seq 100); do
    [ -n "$(timeout 5 squeue --noheader)" ] || break
    sleep 0.2
  done
fi
# in reverse order of starting; an id may belong to another program by now
tac "$box/pids" | while read -r name id; do
  [ "$(cat "/proc/$id/comm" 2>/dev/null)" = "$name" ] || continue
  kill -TERM "$id"
  # wait instead of killing it, because slurmctld saves its state before it ends;
  # a process that has ended but has not been reaped no longer has an exe
  for _ in $(seq 150); do
    readlink "/proc/$id/exe" >/dev/null || break
    sleep 0.2
  done
done
rm -f "$box/pids"
