# Sourced by cluster.sh and tool.sh: `jvm OPTION... CLASS ARGUMENT...` replaces the shell by a small JVM with Kafka's jars.
kafka_dir=${TUFLOG_KAFKA_DIR:-$(cd "$here/../.." && pwd)/.cache/kafka}

jvm() {
  compgen -G "$kafka_dir/jars/kafka_*.jar" >/dev/null ||
    { echo "kafka: no jars in $kafka_dir/jars: run tests/kafka/setup.sh first" >&2; exit 1; }
  exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xshare:auto \
    -Dlog4j2.configurationFile="$here/log4j2.xml" -cp "$kafka_dir/jars/*" "$@"
}
