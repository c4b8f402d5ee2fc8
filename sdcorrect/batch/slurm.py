"""The batch script that runs a job as a SLURM array."""

import re
import shlex
from collections.abc import Mapping, Sequence

from sdcorrect.errors import UsageError, printable

#: Time limits as sbatch reads them: minutes, hours:minutes:seconds, days-hours and others.
TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|infinite|unlimited", re.IGNORECASE)
#: Seconds before the time limit at which SLURM asks a task to stop.
GRACE = 120

_SCRIPT = """\
#!/usr/bin/env bash
# Runs one job as a SLURM array: each task takes its share of the pictures. Written by `sdcorrect slurm`.
# Flags of sbatch go before this file's name (--time, --partition, --gres, another --array), flags of
# `sdcorrect translate` after it.
#SBATCH --job-name=sdcorrect
#SBATCH --array=0-{last}
#SBATCH --requeue
#SBATCH --signal=B:USR1@{grace}
#SBATCH --open-mode=append
{options}
echo "task $SLURM_ARRAY_TASK_ID of job $SLURM_ARRAY_JOB_ID, restart ${{SLURM_RESTART_COUNT:-0}}"

# as many threads in every task: a picture's bytes depend on it
export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}}
{setup}
# SLURM sends USR1 to this shell alone, so it is passed on. TERM it sends to all processes of the task:
# passed on, it would be the second signal, which asks to stop at once.
trap 'kill -USR1 "$tool"' USR1
trap : TERM
{program} translate -c {config} "$@" &
tool=$!
wait "$tool"
status=$?
while kill -0 "$tool" 2>/dev/null; do # a trap ended the wait, not the tool
  wait "$tool"
  status=$?
done

# USR1 asked it to stop: 142 is its own answer, 138 the system's where it had not begun to listen
if [ "$status" -eq 142 ] || [ "$status" -eq 138 ]; then
  echo "requeued to go on"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def render_array(
    program: str,
    config: str,
    tasks: int,
    options: Mapping[str, str] | None = None,
    setup: Sequence[str] = (),
) -> str:
    """A script for `sbatch` that splits the job file `config` among `tasks` array tasks.

    Args:
        program: how the tasks call sdcorrect.
        config: the job file; a relative path starts at the folder that sbatch is called in.
        options: flags of sbatch and their values, such as `time` and `4:00:00`.
        setup: shell commands to run first; a task ends if one of them fails.

    Raises:
        UsageError: a value of `options` is not a single word, or the time is none that sbatch reads.
    """
    for name, value in (options or {}).items():
        if not re.fullmatch(r"[!-~]+", value):
            raise UsageError(
                f"--{name} {printable(repr(value))}: expected a single word without spaces or accents"
            )
        if name == "time" and not TIME.fullmatch(value):
            raise UsageError(
                f"--time {printable(value)}: expected a limit as sbatch reads it, such as 90 (minutes), "
                "4:00:00 or 1-12 (days-hours)"
            )
    return _SCRIPT.format(
        last=tasks - 1,
        grace=GRACE,
        program=shlex.quote(program),
        config=shlex.quote(config),
        options="".join(f"#SBATCH --{name}={value}\n" for name, value in (options or {}).items()),
        setup="".join(f"\n{{ {line}\n}} || exit\n" for line in setup),
    )
