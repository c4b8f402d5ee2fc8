#!/usr/bin/env bash
# Cancel the jobs of the SLURM that box-up.sh started in DIR, and stop its daemons by their process ids.
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
# the last started first; an id may be another program's by now
tac "$box/pids" | while read -r name id; do
  [ "$(cat "/proc/$id/comm" 2>/dev/null)" = "$name" ] || continue
  kill -TERM "$id"
  # slurmctld saves its state before it ends: it is never killed
  # one that has ended, and that nobody has waited for yet, has no program any more
  for _ in $(seq 150); do
    readlink "/proc/$id/exe" >/dev/null || break
    sleep 0.2
  done
done
rm -f "$box/pids"
