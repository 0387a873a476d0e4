#!/usr/bin/env bash
# tool.sh TOOL ARGUMENT...: Kafka's own command-line tools, from the jars that setup.sh installed. For example
#
#   tests/kafka/tool.sh kafka-topics --bootstrap-server 127.0.0.1:9092 --describe
#   tests/kafka/tool.sh kafka-consumer-groups --bootstrap-server 127.0.0.1:9092 --all-groups --describe
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/jvm.sh"

tools=org.apache.kafka.tools
declare -A class=(
  [kafka-acls]=$tools.AclCommand
  [kafka-configs]=kafka.admin.ConfigCommand
  [kafka-consumer-groups]=$tools.consumer.group.ConsumerGroupCommand
  [kafka-delete-records]=$tools.DeleteRecordsCommand
  [kafka-get-offsets]=$tools.GetOffsetShell
  [kafka-leader-election]=$tools.LeaderElectionCommand
  [kafka-metadata-quorum]=$tools.MetadataQuorumCommand
  [kafka-topics]=$tools.TopicCommand
)
name=${1:-}
name=${name%.sh}
if [ -z "$name" ] || [ -z "${class[$name]:-}" ]; then
  echo "usage: tool.sh TOOL ARGUMENT...; tools: $(printf '%s\n' "${!class[@]}" | sort | paste -sd' ')" >&2
  exit 2
fi
shift
jvm -Xmx256m "${class[$name]}" "$@"
