#!/bin/sh
# Let a MachineConfigPool go on from node to node only while the network is quiet and its budget lasts.
#
#     OVNWATCH_TOKEN=... manifests/examples/machine-config-pool.sh worker http://bastion:9091 http://bastion:9482
#
# A window with a budget must be open there. The pool is paused whenever no node of it may begin, and stays so where the
# gate says stop or cannot be asked: a node that has begun is not stopped by that. maxUnavailable of the pool must be 1.
# GATE and EVERY may be set for other limits.
set -eu

pool=${1:?the name of a MachineConfigPool} bastion=${2:?the URL of a bastion} migration=${3:-}
gate=${GATE:---quiet 60s --budget-left 10s --timeout 30m} every=${EVERY:-5}

paused() { oc patch machineconfigpool "$pool" --type merge --patch "{\"spec\":{\"paused\":$1}}" >/dev/null; }
field() { oc get machineconfigpool "$pool" --output "jsonpath={.status.$1}"; }
mark() { [ -z "$migration" ] || ovnwatch migration mark "$1" --url "$migration" --rolls; }
# Whatever ends us, no node begins unseen.
trap 'paused true' EXIT
trap 'exit 1' INT TERM

wanted() { oc get machineconfigpool "$pool" --output 'jsonpath={.spec.configuration.name}'; }
updated() { field updatedMachineCount; }
finished() { [ "$(field configuration.name)" = "$(wanted)" ] && [ "$(updated)" = "$(field machineCount)" ]; }

paused true
mark "pool $pool"
until finished; do
    before=$(updated)
    # shellcheck disable=SC2086 # words of flags
    ovnwatch gate --url "$bastion" $gate || {
        echo "$pool stays paused: the gate said no, $before machines are done" >&2
        exit 2
    }
    paused false
    # A node has begun: no other one may before this one is done and the gate has been asked again.
    until [ "$(field unavailableMachineCount)" != 0 ] || [ "$(updated)" != "$before" ] || finished; do sleep "$every"; done
    paused true
    until { [ "$(updated)" != "$before" ] && [ "$(field unavailableMachineCount)" = 0 ]; } || finished; do
        if [ "$(field degradedMachineCount)" != 0 ]; then
            echo "$pool is degraded" >&2
            exit 2
        fi
        sleep "$every"
    done
    echo "$pool: $(updated) of $(field machineCount) machines done"
done
mark none
trap - EXIT
paused false
echo "$pool: all machines are done"
