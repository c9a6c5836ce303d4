#!/usr/bin/env bash
#SBATCH --job-name=ctenrich
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=48G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
# A Ray head on the first node, workers on the others, the driver here. The run's folder is on shared storage.
# Usage: sbatch docs/recipes/slurm.sh COHORT RUN [options of ctenrich run]
set -euo pipefail

cohort=$1
run=$2
shift 2
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}'):6379

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --node-ip-address="${address%:*}" --port=6379 --block &
sleep 15
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 -w "$node" ray start --address="$address" --block &
done
sleep 15

ctenrich run "$cohort" --out "$run" --executor ray --address "$address" "$@" &
driver=$!
trap 'kill -TERM "$driver"' TERM
while kill -0 "$driver" 2>/dev/null; do wait "$driver" && status=0 || status=$?; done
exit "${status:-0}"
