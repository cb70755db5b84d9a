"""Where a command of `vamoh` runs: on nodes of this machine, as a Ray job, in Slurm, in Kubernetes.

command.py    what may be launched, checked before anything is started
again.py      what runs there: the command, going on where an earlier attempt of the same launch stopped
local.py      a Ray of several nodes on this machine; keeper.py: the process that holds it, and ends it
package.py    the files that travel; job.py: Ray's Jobs API
slurm.py      one batch script (slurm.sh); node.py: a node's part of the Ray in it
kuberay.py    a RayJob manifest
"""
