#!/usr/bin/env bash
# Start a one-node SLURM on this machine's loopback for the tests. Needs Debian and root, but no systemd.
#   box-up.sh DIR && export SLURM_CONF=DIR/slurm.conf
# It writes only below DIR and listens only on 127.0.0.1; box-down.sh DIR stops it.
set -euo pipefail
box=$(realpath -m "${1:?usage: box-up.sh DIR}")
host=$(hostname -s)

missing=()
for package in munge:munged slurmctld:slurmctld slurmd:slurmd slurm-client:sbatch; do
  command -v "${package#*:}" >/dev/null || missing+=("${package%:*}")
done
if [ ${#missing[@]} -gt 0 ]; then
  # RUNLEVEL=1 keeps the packages from starting their daemons
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
case "$(getent ahostsv4 "$host")" in
  127.*) ;;
  *) echo "box-up: $host is not a loopback address; add '127.0.0.1 $host' to /etc/hosts" >&2; exit 2 ;;
esac

mkdir -p "$box"/{state,spool,log,munge}
# munged needs a key that nobody else can read and a socket that everybody can reach
chmod 755 "$box" "$box/munge"
(umask 077 && head -c 128 /dev/urandom >"$box/munge/key")

cat >"$box/slurm.conf" <<CONF
ClusterName=box
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued task waits until its credential expires
AuthInfo=socket=$box/munge/socket,cred_expire=5
StateSaveLocation=$box/state
SlurmdSpoolDir=$box/spool
SlurmctldPidFile=$box/slurmctld.pid
SlurmdPidFile=$box/slurmd.pid
SlurmctldLogFile=$box/log/slurmctld.log
SlurmdLogFile=$box/log/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
# a node that is set DOWN by hand stays down until it is resumed
ReturnToService=1
KillWait=10
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$box/slurm.conf

fail() {
  echo "box-up: $1" >&2
  tail -n 20 "$box"/log/* >&2
  "$(dirname "$0")/box-down.sh" "$box" >&2
  exit 1
}
# start NAME COMMAND...: run it in the foreground of a new session, so that its id is the daemon's
start() {
  local name=$1
  shift
  setsid "$@" </dev/null >"$box/log/$name.out" 2>&1 &
  echo "$name $!" >>"$box/pids"
}
# await SECONDS COMMAND...: wait until the command succeeds
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}
idle() { [ "$(sinfo --noheader --format=%T)" = idle ]; }

start munged munged --foreground --socket="$box/munge/socket" --key-file="$box/munge/key" \
  --pid-file="$box/munge/pid" --seed-file="$box/munge/seed" --log-file="$box/log/munged.log"
await 10 munge --no-input --socket="$box/munge/socket" || fail "munged does not answer"
start slurmctld slurmctld -D
await 20 scontrol ping || fail "slurmctld does not answer"
start slurmd slurmd -D
await 30 idle || fail "the node is not idle: $(sinfo --noheader --format='%T %E')"
