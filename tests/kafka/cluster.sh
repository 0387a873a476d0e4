#!/usr/bin/env bash
# A real Kafka on this machine, for tests and trials: 1 or 3 nodes, each broker and controller (KRaft), loopback only.
#
#   cluster.sh create NODES DIR BASE_PORT [--sasl]   write the settings of every node below DIR and format its disk
#   cluster.sh node DIR N                            become node N (1 …): the process is the JVM, to be killed as one likes
#   cluster.sh wait DIR                              wait until every broker answers and knows the others
#   cluster.sh bootstrap DIR [--sasl]                print the address list for clients
#   cluster.sh up NODES DIR BASE_PORT [--sasl]       all of it, in the foreground until Ctrl-C; keeps the data in DIR
#
# Ports: BASE_PORT + n-1 for clients, + 3 + n-1 between controllers, + 6 + n-1 for SASL_SSL.
#
# With --sasl there is a second listener: TLS by a throw-away authority (DIR/ca.pem), users by PLAIN and SCRAM-SHA-512:
# `admin` (may do everything) and `tuflog` (may do what ACLs say), passwords `admin-secret` and `tuflog-secret`; by
# SCRAM also a user for each row of the README's table of rights, such as `fold` with `fold-secret`.
# Who comes by the plaintext port may do everything.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/jvm.sh"

die() { echo "kafka: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | grep -v '^set' >&2; exit 2; }

# Reads what create wrote: nodes, base and sasl.
load() {
  [ -f "$1/cluster.env" ] || die "there is no cluster in $1: create one first"
  source "$1/cluster.env"
}

address_list() { # first port
  local n list=
  for ((n = 0; n < nodes; n++)); do list+=,127.0.0.1:$(($1 + n)); done
  echo "${list#,}"
}

certificates() {
  local dir=$1 key=(-newkey rsa:2048 -noenc)
  openssl req -x509 "${key[@]}" -days 30 -subj "/CN=tuflog test authority" -keyout "$dir/ca.key" -out "$dir/ca.pem"
  openssl req "${key[@]}" -subj "/CN=127.0.0.1" -keyout "$dir/server.key" -out "$dir/server.csr"
  openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 30 \
    -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost") -out "$dir/server.crt"
  cat "$dir/server.key" "$dir/server.crt" >"$dir/server.pem"
}

sasl_settings() { # dir port
  local login=org.apache.kafka.common.security listener=listener.name.sasl_ssl
  cat <<END
$listener.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
$listener.plain.sasl.jaas.config=$login.plain.PlainLoginModule required user_admin="admin-secret" user_tuflog="tuflog-secret";
$listener.scram-sha-512.sasl.jaas.config=$login.scram.ScramLoginModule required;
$listener.ssl.keystore.type=PEM
$listener.ssl.keystore.location=$1/server.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
allow.everyone.if.no.acl.found=false
END
}

settings() { # dir n
  local dir=$1 n=$2 voters= i copies=1 insync=1
  for ((i = 1; i <= nodes; i++)); do voters+=,$i@127.0.0.1:$((base + 3 + i - 1)); done
  if [ "$nodes" = 3 ]; then copies=3 insync=2; fi
  local listeners="PLAINTEXT://127.0.0.1:$((base + n - 1))"
  if [ "$sasl" = yes ]; then listeners+=",SASL_SSL://127.0.0.1:$((base + 6 + n - 1))"; fi
  cat <<END
process.roles=broker,controller
node.id=$n
controller.quorum.voters=${voters#,}
controller.listener.names=CONTROLLER
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
listeners=$listeners,CONTROLLER://127.0.0.1:$((base + 3 + n - 1))
advertised.listeners=$listeners
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
replica.lag.time.max.ms=5000
log.dirs=$dir/node-$n
auto.create.topics.enable=false
default.replication.factor=$copies
min.insync.replicas=$insync
offsets.topic.num.partitions=4
offsets.topic.replication.factor=$copies
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$insync
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$insync
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
num.network.threads=2
num.io.threads=4
num.replica.fetchers=1
num.recovery.threads.per.data.dir=1
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=2097152
log.index.size.max.bytes=1048576
END
  if [ "$sasl" = yes ]; then sasl_settings "$dir" ; fi
}

create() {
  nodes=$1 base=$3 sasl=no
  [ "$nodes" = 1 ] || [ "$nodes" = 3 ] || die "1 or 3 nodes, not $nodes"
  case ${4:-} in --sasl) sasl=yes ;; "") ;; *) usage ;; esac
  mkdir -p "$2"
  local dir n formats=()
  dir=$(cd "$2" && pwd)
  [ ! -e "$dir/cluster.env" ] || die "there is a cluster in $dir already"
  if [ "$sasl" = yes ]; then certificates "$dir" 2>"$dir/openssl.log" || { cat "$dir/openssl.log" >&2; exit 1; }; fi
  local users=()
  if [ "$sasl" = yes ]; then
    for n in admin tuflog init intake fold compact http audit; do users+=(--add-scram "SCRAM-SHA-512=[name=$n,password=$n-secret]"); done
  fi
  for ((n = 1; n <= nodes; n++)); do
    settings "$dir" "$n" >"$dir/node-$n.properties"
    (jvm -Xmx128m kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAQ \
      --config "$dir/node-$n.properties" "${users[@]}") >"$dir/format-$n.log" 2>&1 &
    formats+=($!)
  done
  for n in "${!formats[@]}"; do
    wait "${formats[n]}" || { cat "$dir/format-$((n + 1)).log" >&2; die "node $((n + 1)) could not be formatted"; }
  done
  echo "nodes=$nodes base=$base sasl=$sasl" >"$dir/cluster.env"
}

node() {
  load "$1"
  [ "$2" -ge 1 ] && [ "$2" -le "$nodes" ] || die "nodes are 1 to $nodes"
  jvm -Xms128m -Xmx384m kafka.Kafka "$1/node-$2.properties"
}

wait_for_all() {
  load "$1"
  local n port tries=0
  for ((n = 1; n <= nodes; n++)); do
    port=$((base + n - 1))
    until kcat -b "127.0.0.1:$port" -X topic.metadata.refresh.interval.ms=-1 -L -m 2 2>/dev/null | grep -q "^ $nodes brokers:"; do
      tries=$((tries + 1))
      [ "$tries" -lt 300 ] || die "node $n does not answer on port $port, or does not know $nodes brokers"
      sleep 0.1
    done
  done
}

# Ends nodes in good order; a controller without its majority would not end by itself for long.
end() {
  local tries
  kill "$@" 2>/dev/null || true
  for ((tries = 0; tries < 40; tries++)); do
    kill -0 "$@" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$@" 2>/dev/null || true
  wait
}

up() {
  local dir=$2 pids=() n
  [ -f "$dir/cluster.env" ] || create "$@"
  load "$dir"
  [ "$nodes $base" = "$1 $3" ] || die "the cluster in $dir has $nodes nodes from port $base on: remove $dir to make another"
  trap 'end "${pids[@]}"' EXIT
  trap 'exit 130' INT TERM
  for ((n = 1; n <= nodes; n++)); do
    (node "$dir" "$n") >"$dir/node-$n.log" 2>&1 &
    pids+=($!)
  done
  wait_for_all "$dir"
  local at
  at=$(address_list "$base")
  cat <<END
Kafka runs on $at ($nodes nodes; data and logs in $dir; Ctrl-C stops it). Try

  kcat -b $at -L
  tests/kafka/tool.sh kafka-topics --bootstrap-server $at --describe
END
  if [ "$sasl" = yes ]; then
    echo
    echo "SASL_SSL on $(address_list $((base + 6))): users admin and tuflog, authority $dir/ca.pem"
  fi
  wait -n "${pids[@]}" || true
  die "a node ended; see $dir/node-*.log"
}

case "${1:-} $#" in
  "create 4" | "create 5") create "${@:2}" ;;
  "node 3") node "$(cd "$2" && pwd)" "$3" ;;
  "wait 2") wait_for_all "$2" ;;
  "bootstrap 2") load "$2" && address_list "$base" ;;
  "bootstrap 3") load "$2" && address_list $((base + 6)) ;;
  "up 4" | "up 5") up "${@:2}" ;;
  *) usage ;;
esac
