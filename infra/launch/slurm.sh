# The part of every job that does not change. The driver runs in the batch step, where a warning reaches it alone; Ray runs in
# one task a node, and outlives the driver until it has saved.
set -uo pipefail
umask 077
attempt="$PWD/runs/.launches/$VAMOH_ID.$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
rm -rf "$attempt" && mkdir -p "$attempt" || exit 1
"$VAMOH_PYTHON" -m infra.launch.node --token "$attempt" || exit 1
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$attempt/token" VAMOH_PYTHON
unset RAY_AUTH_TOKEN RAY_ADDRESS

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 --unbuffered \
    "$VAMOH_PYTHON" -m infra.launch.node "$attempt" &
nodes=$!
"$VAMOH_PYTHON" -m infra.launch.again --id "$VAMOH_ID" --head "$attempt/head" --nodes "$SLURM_JOB_NUM_NODES" \
    -- "${VAMOH_COMMAND[@]}" &
driver=$!

# USR1: the time ends, or the machine is wanted. The run saves, and this job takes its place in the queue again.
again=
trap 'again=yes; kill -TERM $driver 2>/dev/null' USR1
trap 'kill -TERM $driver 2>/dev/null' TERM
while true; do
    wait $driver
    code=$?
    kill -0 $driver 2>/dev/null || break
done

touch "$attempt/done"
wait $nodes
rm -rf "$attempt"
if [ -n "$again" ] && [ $code -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
