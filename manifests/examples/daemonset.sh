#!/bin/sh
# Roll a DaemonSet out node by node, each only when the network is quiet and its budget lasts.
#
#     OVNWATCH_TOKEN=... manifests/examples/daemonset.sh ovn-kubernetes ovnkube-node http://bastion:9091 http://bastion:9482
#
# A window with a budget must be open there, and its updateStrategy be OnDelete: a pod is replaced when it is deleted,
# and that is done here, a node's turn being marked meanwhile. It ends with 2 where the gate says stop, and may be
# started again: what is new already is left alone.
set -eu

namespace=${1:?a namespace} name=${2:?the name of a DaemonSet} bastion=${3:?the URL of a bastion} migration=${4:-}
gate=${GATE:---quiet 60s --budget-left 10s --timeout 15m} ready=${READY:-10m}

get() { kubectl --namespace "$namespace" get "$@" </dev/null; }
mark() { [ -z "$migration" ] || ovnwatch migration mark "$1" --url "$migration" --node "$2"; }

strategy=$(get daemonset "$name" --output 'jsonpath={.spec.updateStrategy.type}')
if [ "$strategy" != OnDelete ]; then
    echo "updateStrategy of $name is $strategy, want OnDelete" >&2
    exit 1
fi
generation=$(get daemonset "$name" --output 'jsonpath={.metadata.generation}')

# Each line: pod, node, the generation of the template it was made from, whose it is.
pods=$(get pods --output 'jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.metadata.labels.pod-template-generation} {.metadata.ownerReferences[0].name}{"\n"}{end}')

while read -r pod node made owner; do
    if [ "$owner" != "$name" ] || [ "$made" = "$generation" ]; then continue; fi
    # shellcheck disable=SC2086 # words of flags
    ovnwatch gate --url "$bastion" $gate || {
        echo "stopped before $node: the gate said no" >&2
        exit 2
    }
    mark "roll-out of $name" "$node"
    kubectl --namespace "$namespace" delete pod "$pod" --wait=true
    new=
    while [ -z "$new" ]; do
        new=$(get pods --field-selector "spec.nodeName=$node" --selector "pod-template-generation=$generation" \
            --output "jsonpath={.items[?(@.metadata.ownerReferences[0].name==\"$name\")].metadata.name}")
        [ -n "$new" ] || sleep 1
    done
    # Where that fails we end, and it stays the node's turn: it is.
    kubectl --namespace "$namespace" wait --for condition=Ready --timeout "$ready" "pod/$new"
    mark none "$node"
    echo "$node: $new is ready"
done <<END
$pods
END
